//! tenant_table(): what it converts, and what it refuses.

use crate::{Pool, number, run};

async fn definitions(pool: &mut Pool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
          WHERE connamespace = 'app'::regnamespace AND contype IN ('p', 'u', 'f') ORDER BY 1",
    )
    .fetch_all(&mut pool.admin)
    .await
    .expect("constraints")
}

#[tokio::test]
async fn keys_are_converted_to_lead_with_the_tenant() {
    let mut pool = Pool::new().await;
    pool.migrate(
        "CREATE TABLE folders (id uuid PRIMARY KEY, parent uuid REFERENCES folders ON DELETE CASCADE, name text NOT NULL UNIQUE);
         CREATE TABLE documents (id uuid PRIMARY KEY, folder uuid REFERENCES folders (id) ON DELETE SET NULL, mail text);
         CREATE UNIQUE INDEX documents_mail ON documents (lower(mail)) WHERE mail IS NOT NULL;
         SELECT insula.tenant_table('documents');
         SELECT insula.tenant_table('folders');
         SELECT insula.tenant_table('folders')",
    )
    .await
    .expect("converted");
    run(&mut pool.admin, "SET search_path = app").await.expect("path");
    assert_eq!(
        definitions(&mut pool).await,
        [
            "documents documents_folder_fkey FOREIGN KEY (tenant_id, folder) REFERENCES folders(tenant_id, id) ON DELETE SET NULL (folder)",
            "documents documents_pkey PRIMARY KEY (tenant_id, id)",
            "folders folders_name_key UNIQUE (tenant_id, name)",
            "folders folders_parent_fkey FOREIGN KEY (tenant_id, parent) REFERENCES folders(tenant_id, id) ON DELETE CASCADE",
            "folders folders_pkey PRIMARY KEY (tenant_id, id)",
        ]
    );
    let index: String = sqlx::query_scalar("SELECT pg_get_indexdef('app.documents_mail'::regclass)")
        .fetch_one(&mut pool.admin)
        .await
        .expect("index");
    assert!(index.contains("(tenant_id, lower(mail)) WHERE (mail IS NOT NULL)"), "{index}");
    assert_eq!(insula_kit::lint(&mut pool.admin).await.expect("lint"), []);
}

#[tokio::test]
async fn a_later_table_references_by_tenant_key() {
    let mut pool = Pool::new().await;
    pool.migrate(
        "CREATE TABLE folders (id uuid PRIMARY KEY); SELECT insula.tenant_table('folders');
         CREATE TABLE documents (id uuid PRIMARY KEY, folder uuid); SELECT insula.tenant_table('documents');
         SELECT insula.tenant_key('documents', 'folder', 'folders', 'SET NULL')",
    )
    .await
    .expect("referenced");
    assert_eq!(insula_kit::lint(&mut pool.admin).await.expect("lint"), []);
}

#[tokio::test]
async fn what_would_leak_is_refused_with_the_remedy() {
    for (sql, remedy) in [
        ("CREATE TABLE t (id bigserial PRIMARY KEY)", "next_number"),
        ("CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)", "next_number"),
        ("CREATE TABLE t (id uuid PRIMARY KEY, span int4range, EXCLUDE USING gist (span WITH &&))", "btree_gist"),
        ("CREATE TABLE t (id uuid PRIMARY KEY, tenant_id text)", "bigint"),
        ("CREATE TABLE t (id uuid PRIMARY KEY); INSERT INTO t VALUES (gen_random_uuid())", "before the first row"),
        ("CREATE TABLE p (id uuid); CREATE TABLE t (x int) INHERITS (p)", "partitioning"),
        ("CREATE VIEW t AS SELECT 1", "not a table"),
        (
            "CREATE TABLE u (id uuid, tenant_id bigint, PRIMARY KEY (id, tenant_id)); CREATE TABLE t (LIKE u INCLUDING ALL)",
            "tenant_id first",
        ),
        ("SELECT 1", "no table"),
    ] {
        let mut pool = Pool::new().await;
        let error = pool.migrate(&format!("{sql}; SELECT insula.tenant_table('t')")).await.expect_err(sql);
        let sqlx::Error::Database(error) = error else { panic!("{sql}: {error}") };
        let hint = error.downcast_ref::<sqlx::postgres::PgDatabaseError>().hint().unwrap_or_default().to_owned();
        assert!(format!("{error} {hint}").contains(remedy), "{sql}: {error}; {hint}");
    }
}

#[tokio::test]
async fn shared_tables_are_read_only_and_may_be_referenced() {
    let mut pool = Pool::new().await;
    pool.migrate(
        "CREATE TABLE countries (code text PRIMARY KEY); INSERT INTO countries VALUES ('AT'); SELECT insula.shared_table('countries');
         CREATE TABLE sites (id uuid PRIMARY KEY, country text REFERENCES countries); SELECT insula.tenant_table('sites')",
    )
    .await
    .expect("shared");
    let mut app = pool.app().await;
    assert_eq!(number(&mut app, "SELECT count(*) FROM countries").await.expect("read"), 1);
    assert!(run(&mut app, "INSERT INTO countries VALUES ('XX')").await.is_err());
    assert_eq!(insula_kit::lint(&mut pool.admin).await.expect("lint"), []);
}
