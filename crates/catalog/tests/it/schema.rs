//! Setting the catalog up.

use insula_catalog::{Error, PgSource, Source, schema};
use insula_testkit::{own_server, server};
use sqlx::PgPool;
use tokio::sync::mpsc;

async fn empty() -> (String, PgPool) {
    let server = server().await;
    let name = server.create_database("schema").await;
    let pool = PgPool::connect(&server.admin_url(&name)).await.unwrap();
    (name, pool)
}

#[tokio::test]
async fn it_is_set_up_once_however_many_try() {
    let (_, pool) = empty().await;
    // The role is the server's, and other tests log in with this one.
    let password = server().await.root_key().catalog_password("insula_reader");
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let (pool, password) = (pool.clone(), password.clone());
            tokio::spawn(async move { schema::migrate(&pool, Some(&password)).await.unwrap() })
        })
        .collect();
    let mut applied = 0;
    for one in tries {
        applied += one.await.unwrap().applied.len();
    }
    let again = schema::migrate(&pool, None).await.unwrap();
    let files: i64 = sqlx::query_scalar("SELECT count(*) FROM catalog.schema_migration").fetch_one(&pool).await.unwrap();
    assert_eq!((applied as i64, again.applied.len()), (files, 0));
    let plans: i64 = sqlx::query_scalar("SELECT count(*) FROM catalog.plan").fetch_one(&pool).await.unwrap();
    assert_eq!(plans, 4);
}

/// The role of the readers is the server's: each of them finds that it is not there.
#[tokio::test]
async fn several_are_set_up_at_once_on_a_new_server() {
    let server = own_server().await;
    let password = server.root_key().catalog_password("insula_reader");
    let mut set_up = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let pool = PgPool::connect(&server.admin_url(&server.create_database("beside").await)).await.unwrap();
        let password = password.clone();
        set_up.spawn(async move { schema::migrate(&pool, Some(&password)).await.unwrap() });
    }
    for migrated in set_up.join_all().await {
        assert_eq!(migrated.applied.first(), Some(&1));
    }
}

#[tokio::test]
async fn a_changed_or_newer_catalog_is_refused() {
    let (_, pool) = empty().await;
    schema::migrate(&pool, None).await.unwrap();
    sqlx::query("UPDATE catalog.schema_migration SET checksum = 'x' WHERE version = 1").execute(&pool).await.unwrap();
    let error = schema::migrate(&pool, None).await.unwrap_err();
    assert!(matches!(error, Error::MigrationChanged { version: 1, .. }), "{error}");

    let (_, pool) = empty().await;
    schema::migrate(&pool, None).await.unwrap();
    sqlx::query("INSERT INTO catalog.schema_migration (version, name, checksum) VALUES (999, 'later', '')")
        .execute(&pool)
        .await
        .unwrap();
    let error = schema::migrate(&pool, None).await.unwrap_err();
    assert!(matches!(error, Error::MigrationNewer { found: 999, .. }), "{error}");
    // The lock is free again.
    let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(x'696e73756c61'::bigint)").fetch_one(&pool).await.unwrap();
    assert!(free);
}

#[tokio::test]
async fn the_reader_reads_and_no_more() {
    let (name, pool) = empty().await;
    let server = server().await;
    let password = server.root_key().catalog_password("insula_reader");
    schema::migrate(&pool, Some(&password)).await.unwrap();
    let url = format!("postgres://insula_reader:{password}@{}:{}/{name}?sslmode=disable", server.host(), server.port());
    let reader = PgPool::connect(&url).await.unwrap();
    for denied in [
        "SELECT 1 FROM catalog.api_key",
        "SELECT 1 FROM catalog.audit",
        "SELECT 1 FROM catalog.operation",
        "SELECT 1 FROM catalog.seed",
        "UPDATE catalog.tenant SET state = 'active'",
        "UPDATE catalog.revision SET rev = 0",
        "DELETE FROM catalog.change",
        "SELECT catalog.trim_feed(0)",
        "SELECT catalog.audit_append('a', 'b', NULL, '', '{}')",
    ] {
        let error = sqlx::query(denied).execute(&reader).await.unwrap_err();
        assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("42501"), "{denied}: {error}");
    }
    let (sender, mut pages) = mpsc::channel(100);
    PgSource::connect(&url).unwrap().load(sender).await.unwrap();
    assert!(pages.recv().await.is_some());
}

#[tokio::test]
async fn a_database_without_a_catalog_says_what_to_do() {
    let (name, _pool) = empty().await;
    let source = PgSource::connect(&server().await.admin_url(&name)).unwrap();
    let error = source.changes(0).await.unwrap_err();
    assert!(matches!(error, Error::Absent), "{error}");
    assert!(matches!(PgSource::connect("not a url"), Err(Error::Url)));
}

#[tokio::test]
async fn a_transaction_is_one_revision_and_a_failed_one_is_none() {
    let (_, pool) = empty().await;
    schema::migrate(&pool, None).await.unwrap();
    let feed = async || -> (i64, i64) {
        sqlx::query_as("SELECT rev, (SELECT count(*) FROM catalog.change) FROM catalog.revision").fetch_one(&pool).await.unwrap()
    };
    let (rev, changes) = feed().await;
    let mut conn = pool.acquire().await.unwrap();
    for (sql, revs, more) in [
        ("UPDATE catalog.plan SET version = version + 1", 1, 4),
        ("BEGIN; UPDATE catalog.plan SET version = version + 1; ROLLBACK", 0, 0),
        ("BEGIN; UPDATE catalog.plan SET version = 1; SAVEPOINT s; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO s; COMMIT", 1, 4),
        ("BEGIN; UPDATE catalog.plan SET version = 2; UPDATE catalog.plan SET version = 3; COMMIT", 1, 4),
        ("UPDATE catalog.plan SET version = 4 WHERE name = 'gold'", 1, 1),
    ] {
        let before = feed().await;
        sqlx::raw_sql(sql).execute(&mut *conn).await.unwrap();
        let after = feed().await;
        assert_eq!((after.0 - before.0, after.1 - before.1), (revs, more), "{sql}");
    }
    assert!(feed().await > (rev, changes));
}
