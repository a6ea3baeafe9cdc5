//! Every tenant table of AcmeDocs, found in the catalog at run time: a new one is attacked without being named here. One that
//! cannot be given a row, or that is no tenant table, fails the test.

use insula_kit::Way;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::stage::{Mode, OWN, SECRET, Stage, VICTIM, everything_said, run};

const MIGRATION: &str = concat!(
    include_str!("../../../apps/acmedocs/migrations/0001_documents.sql"),
    include_str!("../../../apps/acmedocs/migrations/0002_exports.sql"),
    include_str!("../../../apps/acmedocs/migrations/0003_digests.sql"),
    include_str!("../../../apps/acmedocs/migrations/0004_export_removals.sql"),
);

struct Table {
    name: String,
    /// Columns that can be written, tenant_id aside, and a value for each.
    columns: Vec<(String, String)>,
}

impl Table {
    fn insert(&self, tenant: Option<i64>) -> String {
        let (mut names, mut values): (Vec<_>, Vec<_>) = self.columns.iter().cloned().unzip();
        if let Some(tenant) = tenant {
            names.push("tenant_id".to_owned());
            values.push(tenant.to_string());
        }
        format!("INSERT INTO {} ({}) VALUES ({})", self.name, names.join(", "), values.join(", "))
    }
}

/// A value of a column's type that shows whose it is, where the type can.
fn value(kind: &str) -> String {
    match kind {
        "text" | "character varying" => format!("'{SECRET}'"),
        "bytea" => format!("'{SECRET}'::bytea"),
        "jsonb" => format!("'{{\"a\": \"{SECRET}\"}}'"),
        "text[]" => format!("'{{{SECRET}}}'"),
        "uuid" => "'00000000-0000-7000-8000-0000000000aa'".to_owned(),
        "boolean" => "true".to_owned(),
        "timestamp with time zone" => "'2001-02-03T04:05:06Z'".to_owned(),
        "date" => "'2001-02-03'".to_owned(),
        "integer" | "bigint" | "smallint" | "numeric" | "double precision" => "424242".to_owned(),
        other => panic!("no value for a column of type {other}: give it one here, so that its table can be attacked"),
    }
}

async fn tables(stage: &mut Stage) -> Vec<Table> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL)
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
          WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND a.attname <> 'tenant_id' ORDER BY c.relname, a.attnum",
    )
    .bind(&stage.schema)
    .fetch_all(&mut stage.host)
    .await
    .expect("the catalog");
    let mut tables: Vec<Table> = Vec::new();
    for (name, column, kind) in rows {
        if tables.last().is_none_or(|t| t.name != name) {
            tables.push(Table { name, columns: Vec::new() });
        }
        tables.last_mut().expect("just pushed").columns.push((column, value(&kind)));
    }
    assert!(tables.len() >= 10, "AcmeDocs has more tables than these");
    tables
}

/// The victim's row in every table. Checks and foreign keys are not what is tested: they are out of the way.
async fn plant(stage: &mut Stage, tables: &[Table]) {
    let checks: Vec<String> = sqlx::query_scalar(
        "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint
          WHERE contype = 'c' AND connamespace = $1::regnamespace",
    )
    .bind(&stage.schema)
    .fetch_all(&mut stage.host)
    .await
    .expect("checks");
    for check in checks {
        run(&mut stage.host, &check).await.expect("a check less");
    }
    run(&mut stage.host, &format!("SET session_replication_role = replica; SET search_path = {}", stage.schema))
        .await
        .expect("settings");
    for table in tables {
        run(&mut stage.host, &table.insert(Some(VICTIM))).await.expect("the victim's row");
    }
}

async fn attack_every_table(mode: Mode, way: Way) {
    let mut stage = Stage::empty(mode, way).await;
    stage.migrate(MIGRATION).await;
    let tables = tables(&mut stage).await;
    plant(&mut stage, &tables).await;
    let mut conn = stage.attacker().await;
    for table in &tables {
        let name = &table.name;
        for bound in [true, false] {
            for (sql, must_refuse) in [
                (format!("SELECT * FROM {name}"), false),
                (format!("SELECT * FROM {name} WHERE tenant_id = {VICTIM} FOR UPDATE"), false),
                (format!("UPDATE {name} SET tenant_id = tenant_id WHERE tenant_id = {VICTIM} RETURNING *"), false),
                (format!("UPDATE {name} SET tenant_id = {OWN} RETURNING *"), false),
                (format!("DELETE FROM {name} RETURNING *"), false),
                (format!("COPY {name} TO STDOUT"), false),
                (table.insert(Some(VICTIM)), true),
                (format!("TRUNCATE {name} CASCADE"), true),
                (format!("ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY"), true),
            ] {
                if bound {
                    run(&mut conn, "BEGIN").await.expect("begin");
                    stage.bind(&mut conn).await;
                }
                let (allowed, said) = everything_said(&mut conn, &sql).await;
                if bound {
                    run(&mut conn, "COMMIT").await.expect("commit");
                }
                let shown = said.contains(SECRET) && !said.contains("new row violates row-level security");
                assert!(!(shown || allowed && must_refuse), "{mode:?}, {way:?}: {sql}: {said}");
            }
        }
        probe(&stage, &mut conn, table).await;
        let left: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {name} WHERE tenant_id = {VICTIM}")))
            .fetch_one(&mut stage.host)
            .await
            .expect("a count");
        assert_eq!(left, 1, "{mode:?}, {way:?}: the victim's row of {name}");
    }
}

/// The same values as the victim's, as the attacker's own row: a unique violation would tell that they exist.
async fn probe(stage: &Stage, conn: &mut PgConnection, table: &Table) {
    run(conn, "BEGIN").await.expect("begin");
    stage.bind(conn).await;
    let (allowed, said) = everything_said(conn, &table.insert(None)).await;
    // 23503: no such parent of one's own, whether another tenant has it or not.
    assert!(allowed || said.contains("23503"), "{:?}: a row like the victim's in {}: {said}", stage.mode, table.name);
    run(conn, "ROLLBACK").await.expect("rollback");
}

#[tokio::test]
async fn every_table_is_denied_in_every_mode() {
    for mode in [Mode::Row, Mode::Schema, Mode::Database] {
        for way in [Way::Setting, Way::Ticket] {
            attack_every_table(mode, way).await;
        }
    }
}
