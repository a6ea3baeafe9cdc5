//! A tenant that keeps a transaction open, and a migration that wants its tables: nobody else waits for either.

use std::time::Duration;

use insula_control::model::{Migration, Operation};
use insula_core::Isolation;
use sqlx::{Connection as _, PgConnection};

use crate::house::{House, LONG, bundle};

/// A transaction of a tenant's that has read its notes.
async fn open(house: &House, slug: &str) -> PgConnection {
    let place = house.control.tenant(slug).await.expect("there").placement.expect("placed");
    let mut conn = PgConnection::connect(&house.server.role_url(&place.role(), &place.database)).await.expect("its login");
    sqlx::raw_sql("BEGIN").execute(&mut conn).await.expect("begun");
    if place.isolation == Isolation::Row {
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await.expect("pid");
        let grant = house.control.grant("test", slug, pid).await.expect("granted");
        sqlx::query("SELECT insula.enter($1)").bind(grant.text()).execute(&mut conn).await.expect("entered");
    }
    let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&mut conn).await.expect("read");
    assert_eq!(notes, 1);
    conn
}

/// Begins to bring a column to everybody's notes.
async fn begin(house: &House) -> Operation {
    let mut bundle = bundle();
    let sql = "ALTER TABLE notes ADD COLUMN color text";
    bundle.migrations.push(Migration { version: 3, name: "colors".into(), sql: sql.into() });
    house.control.put_bundle("test", bundle).await.expect("a good bundle").operation.expect("news")
}

/// Waits until the operation says whom it waits for.
async fn told(house: &House, begun: &Operation) -> String {
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        let now = house.control.operation(begun.id).await.expect("there");
        assert!(!now.state.finished(), "it was to wait: {now:?}");
        if let Some(error) = now.error {
            assert_eq!(error.kind, "unavailable");
            return error.detail;
        }
        assert!(tokio::time::Instant::now() < deadline, "it does not say");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn version(house: &House, slug: &str) -> i64 {
    house.control.tenant(slug).await.expect("there").schema_version
}

#[tokio::test]
async fn who_keeps_a_pool_s_table_is_named_and_the_others_go_on() {
    let mut house = House::start().await;
    for slug in ["busy", "brisk"] {
        house.tenant(slug, Isolation::Row).await;
    }
    let mut busy = open(&house, "busy").await;
    let begun = begin(&house).await;
    let told = told(&house, &begun).await;
    let no = house.control.tenant("busy").await.expect("there").no;
    for part in ["migration 3 (colors)", &format!("tenant {no} is busy"), "login insula_app", "idle in transaction", "notes"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // It is tried again all the time; others get in between.
    for _ in 0..3 {
        let brisk = tokio::time::timeout(LONG, open(&house, "brisk")).await.expect("nobody waits for busy");
        brisk.close().await.expect("closed");
    }
    assert_eq!(version(&house, "brisk").await, 2);
    sqlx::raw_sql("COMMIT").execute(&mut busy).await.expect("committed");
    house.done(begun.id).await;
    for slug in ["busy", "brisk"] {
        assert_eq!(version(&house, slug).await, 3);
    }
    let color: Option<String> = sqlx::query_scalar("SELECT color FROM app.notes LIMIT 1")
        .fetch_one(&mut house.server.admin("insula_pool").await)
        .await
        .expect("a column");
    assert_eq!(color, None);
    house.stop().await;
}

#[tokio::test]
async fn who_keeps_tables_of_its_own_keeps_nobody_else_s_version() {
    let mut house = House::start().await;
    for isolation in [Isolation::Schema, Isolation::Database] {
        for slug in ["busy", "brisk"] {
            house.tenant(&format!("{slug}-{isolation}"), isolation).await;
        }
    }
    let mut busy = vec![];
    for slug in ["busy-schema", "busy-database"] {
        busy.push(open(&house, slug).await);
    }
    let begun = begin(&house).await;
    let told = told(&house, &begun).await;
    for slug in ["busy-schema", "busy-database"] {
        let tenant = house.control.tenant(slug).await.expect("there");
        for part in [format!("tenant {} is {slug}", tenant.no), format!("login {}", tenant.placement.expect("placed").role())] {
            assert!(told.contains(&part), "{part}: {told}");
        }
        assert_eq!(version(&house, slug).await, 2);
    }
    for slug in ["brisk-schema", "brisk-database"] {
        assert_eq!(version(&house, slug).await, 3, "{slug} came after one that waits");
    }
    for conn in &mut busy {
        sqlx::raw_sql("COMMIT").execute(conn).await.expect("committed");
    }
    house.done(begun.id).await;
    for slug in ["busy-schema", "busy-database"] {
        assert_eq!(version(&house, slug).await, 3);
    }
    house.stop().await;
}

/// When patience ends before the transaction does, it is begun anew.
#[tokio::test]
async fn a_migration_that_gave_up_is_begun_again() {
    let mut house = House::on(insula_testkit::durable_server().await.into(), |config| config.patience = Duration::ZERO).await;
    house.put_bundle().await;
    house.tenant("busy", Isolation::Schema).await;
    let mut busy = open(&house, "busy").await;
    let begun = begin(&house).await;
    let ended = house.ended(begun.id).await;
    assert_eq!(ended.error.map(|error| error.kind).as_deref(), Some("unavailable"));
    sqlx::raw_sql("COMMIT").execute(&mut busy).await.expect("committed");
    let deadline = tokio::time::Instant::now() + LONG;
    while version(&house, "busy").await != 3 {
        assert!(tokio::time::Instant::now() < deadline, "nobody begins again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.stop().await;
}
