//! Every rule of the lint: its violation is made, and found. Without violations nothing is found.

use std::collections::BTreeSet;

use sqlx::Connection;

use crate::{Pool, run};

/// Rule, what makes the violation (as superuser, search_path app), and the object that must be named.
const VIOLATIONS: &[(&str, &str, &str)] = &[
    ("table-uncovered", "CREATE TABLE bare (id int); ALTER TABLE bare OWNER TO insula_owner", "bare"),
    ("row-security-off", "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY", "notes"),
    ("row-security-off", "ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "notes"),
    ("policy-altered", "ALTER POLICY tenant ON notes USING (true)", "notes"),
    ("policy-altered", "ALTER POLICY tenant ON notes WITH CHECK (true)", "notes"),
    ("policy-altered", "ALTER POLICY tenant ON notes TO insula_app", "notes"),
    ("policy-extra", "CREATE POLICY mine ON notes USING (body = 'public')", "notes"),
    ("owner", "ALTER TABLE notes OWNER TO insula_admin", "notes"),
    ("tenant-column", "ALTER TABLE notes ALTER tenant_id DROP DEFAULT", "notes"),
    ("inheritance", "CREATE TABLE child () INHERITS (notes)", "child"),
    ("materialized-view", "CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM notes", "counts"),
    (
        "foreign-table",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far (id int) SERVER s",
        "far",
    ),
    ("view-definer", "CREATE VIEW v AS SELECT * FROM notes", "v"),
    ("merge", "DROP RULE no_merge ON notes", "notes"),
    ("merge", "ALTER TABLE notes DISABLE RULE no_merge", "notes"),
    ("merge", "CREATE OR REPLACE RULE no_merge AS ON DELETE TO notes DO ALSO SELECT 1", "notes"),
    ("rule", "CREATE RULE r AS ON INSERT TO notes DO ALSO SELECT 1", "notes"),
    ("sequence", "CREATE SEQUENCE numbers", "numbers"),
    ("unique-without-tenant", "CREATE UNIQUE INDEX bodies ON notes (body)", "bodies"),
    ("unique-without-tenant", "ALTER TABLE notes ADD CONSTRAINT x EXCLUDE USING btree (body WITH =)", "x"),
    (
        "foreign-key-without-tenant",
        "ALTER TABLE notes ADD COLUMN up uuid; ALTER TABLE notes ADD CONSTRAINT u UNIQUE (id);
         ALTER TABLE notes ADD FOREIGN KEY (up) REFERENCES notes (id)",
        "notes",
    ),
    ("tenant-index", "ALTER TABLE notes DROP CONSTRAINT notes_pkey", "notes"),
    (
        "function-definer",
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM app.notes'",
        "f()",
    ),
    (
        "function-definer",
        "SET ROLE insula_owner; CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; RESET ROLE",
        "f()",
    ),
    ("function-owner", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "f()"),
    ("function-leakproof", "CREATE FUNCTION f() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'", "f()"),
    ("function-language", "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'pg_backend_pid'", "f()"),
    (
        "trigger-owner",
        "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER t BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION t()",
        "notes",
    ),
    ("trigger-disabled", "ALTER TABLE insula.tenant DISABLE TRIGGER raise_fence", "insula.tenant"),
    (
        "event-trigger",
        "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION e()",
        "e",
    ),
    ("publication", "CREATE PUBLICATION p FOR ALL TABLES", "p"),
    ("publication", "CREATE PUBLICATION p FOR TABLES IN SCHEMA app", "p"),
    ("publication", "CREATE PUBLICATION p FOR TABLE notes", "p"),
    ("extension", "CREATE EXTENSION dblink", "dblink"),
    ("search-expression", "CREATE INDEX words ON notes USING gin (to_tsvector('english', body))", "words"),
    ("role-attribute", "ALTER ROLE insula_app BYPASSRLS", "insula_app"),
    ("owner-login", "ALTER ROLE insula_owner LOGIN", "insula_owner"),
    ("role-member", "GRANT insula_owner TO insula_app", "insula_app"),
    ("setting-grant", "GRANT SET ON PARAMETER backtrace_functions TO insula_app", "insula_app"),
    ("setting-grant", "GRANT SET ON PARAMETER dynamic_library_path TO PUBLIC", "PUBLIC"),
    ("login-binding", "INSERT INTO insula.tenant (no, epoch, role) VALUES (77, 1, 'insula_app')", "insula_app"),
    ("login-binding", "ALTER ROLE insula_app SET backtrace_functions = '1'", "insula_app"),
    ("worker-grant", "GRANT SELECT ON insula.job TO insula_worker", "insula.job"),
    ("worker-grant", "GRANT EXECUTE ON FUNCTION insula.host_enter(bigint) TO insula_worker", "insula.host_enter(bigint)"),
    ("table-grant", "GRANT TRUNCATE ON notes TO insula_app", "notes"),
    ("table-grant", "GRANT SELECT ON notes TO PUBLIC", "notes"),
    ("table-grant", "GRANT SELECT ON notes TO insula_app WITH GRANT OPTION", "notes"),
    ("table-ungranted", "REVOKE SELECT ON notes FROM insula_app", "notes"),
    ("kit-grant", "GRANT SELECT ON insula.secret TO insula_app", "insula.secret"),
    ("kit-grant", "GRANT EXECUTE ON FUNCTION insula.host_enter(bigint) TO insula_app", "insula.host_enter(bigint)"),
    ("kit-grant", "GRANT EXECUTE ON FUNCTION insula.host_enter(bigint) TO PUBLIC", "insula.host_enter(bigint)"),
    ("schema-grant", "GRANT CREATE ON SCHEMA app TO insula_app", "app"),
    ("schema-grant", "GRANT USAGE ON SCHEMA public TO PUBLIC", "public"),
    ("default-privilege", "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO insula_app", "insula_admin"),
    ("language-grant", "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC", "plpgsql"),
    (
        "catalog-function",
        "GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO PUBLIC",
        "set_config(text,text,boolean)",
    ),
    ("catalog-relation", "GRANT SELECT ON pg_catalog.pg_locks TO PUBLIC", "pg_locks"),
    ("server-database", "GRANT CONNECT ON DATABASE template1 TO PUBLIC", "template1"),
    ("catalog-column", "GRANT SELECT (reltuples) ON pg_catalog.pg_class TO PUBLIC", "pg_class.reltuples"),
];

/// Cannot be made to happen inside a transaction on a way-1 server: found elsewhere, or a server's own setting.
const ELSEWHERE: &[&str] = &["database-grant", "way-ticket", "prepared-transactions"];

async fn pool() -> Pool {
    let mut pool = Pool::new().await;
    pool.migrate("CREATE TABLE notes (id uuid PRIMARY KEY, body text); SELECT insula.tenant_table('notes')")
        .await
        .expect("a table");
    pool
}

/// A transaction in which the violation stands. Grants on what belongs to the server meet those of the other tests.
async fn broken<'a>(admin: &'a mut sqlx::PgConnection, sql: &str) -> sqlx::Transaction<'a, sqlx::Postgres> {
    let mut tx = admin.begin().await.expect("begin");
    run(&mut tx, "SET LOCAL search_path = app; SAVEPOINT whole").await.expect("path");
    while let Err(e) = run(&mut tx, sql).await {
        assert!(e.to_string().contains("tuple concurrently updated"), "{sql}: {e}");
        run(&mut tx, "ROLLBACK TO whole").await.expect("rollback");
    }
    tx
}

#[tokio::test]
async fn each_violation_is_found() {
    let mut pool = pool().await;
    assert_eq!(insula_kit::lint(&mut pool.admin).await.expect("lint"), []);
    for (rule, sql, object) in VIOLATIONS {
        let mut tx = broken(&mut pool.admin, sql).await;
        let found = insula_kit::lint(&mut tx).await.expect("lint");
        assert!(found.iter().any(|f| f.rule == *rule && f.object == *object), "{sql}: {rule} not found on {object}: {found:#?}");
        tx.rollback().await.expect("rollback");
    }
    let database = pool.database.clone();
    run(&mut pool.admin, &format!("GRANT TEMP ON DATABASE {database} TO PUBLIC")).await.expect("grant");
    let found = insula_kit::lint(&mut pool.admin).await.expect("lint");
    assert_eq!(found.iter().map(|f| f.rule.as_str()).collect::<Vec<_>>(), ["database-grant"]);
}

#[test]
fn every_rule_has_a_violation() {
    let sources = [
        include_str!("../../sql/070_lint.sql"),
        include_str!("../../sql/071_lint_code.sql"),
        include_str!("../../sql/072_lint_privileges.sql"),
    ];
    let rules: BTreeSet<&str> = sources
        .iter()
        .flat_map(|s| s.lines())
        .filter_map(|line| line.trim_start().strip_prefix("SELECT '")?.split_once('\'').map(|(rule, _)| rule))
        .collect();
    let covered: BTreeSet<&str> = VIOLATIONS.iter().map(|v| v.0).chain(ELSEWHERE.iter().copied()).collect();
    assert_eq!(rules, covered, "rules of the SQL and violations of this file");
}
