//! The test servers themselves.

use insula_core::{Clock, Isolation, SystemClock};
use insula_testkit::{CutProxy, TestCell, Wire, second_server, server};
use sqlx::{Connection, PgConnection};

#[tokio::test]
async fn a_server_serves_and_makes_databases() {
    let server = server().await;
    let name = server.create_database("try").await;
    let mut admin = server.admin(&name).await;
    let (version, wal): (i32, String) =
        sqlx::query_as("SELECT current_setting('server_version_num')::int, current_setting('wal_level')")
            .fetch_one(&mut admin)
            .await
            .expect("settings");
    assert!(version >= 150_000);
    assert_eq!(wal, "logical");
    let other = second_server().await;
    assert_ne!(server.port(), other.port());
    assert_ne!(server.cell_key(), other.cell_key());
}

#[tokio::test]
async fn nobody_enters_without_the_password() {
    let server = server().await;
    let url = format!("postgres://insula_admin:wrong@{}:{}/postgres", server.host(), server.port());
    assert!(PgConnection::connect(&url).await.is_err());
}

const MIGRATION: &str = "CREATE TABLE note (id bigint NOT NULL, body text); SELECT insula.tenant_table('note')";

#[tokio::test]
async fn a_cell_has_tenants_in_every_mode() {
    let cell = TestCell::shared(MIGRATION).await;
    for (n, isolation) in Isolation::ALL.into_iter().enumerate() {
        let tenant = cell.tenant(&format!("it-{isolation}"), "gold", isolation).await;
        let place = &tenant.placement;
        let mut conn = PgConnection::connect(&cell.server().role_url(&place.role(), &place.database)).await.expect("its login");
        let mut tx = conn.begin().await.expect("a transaction");
        if isolation == Isolation::Row {
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.expect("a pid");
            let key = cell.server().cell_key().grant_key(&place.database, 1);
            let expires = SystemClock.unix_seconds() + 30;
            let grant = key.sign(tenant.context.no, place.epoch, expires, pid, insula_core::Grant::NO_FENCE);
            sqlx::query("SELECT insula.enter($1)").bind(grant.text()).execute(&mut *tx).await.expect("entered");
        }
        let n = i64::try_from(n).expect("small");
        sqlx::query("INSERT INTO note (id, body) VALUES ($1, 'hello')").bind(n).execute(&mut *tx).await.expect("written");
        let seen: Vec<i64> = sqlx::query_scalar("SELECT id FROM note").fetch_all(&mut *tx).await.expect("read");
        assert_eq!(seen, [n], "{isolation}");
        tx.commit().await.expect("committed");
        cell.assert_nothing_open(&place.role()).await;
    }
}

#[tokio::test]
async fn a_wire_is_stalled_and_cut() {
    let server = server().await;
    let proxy = CutProxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let url = server.admin_url("postgres").replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let mut conn = PgConnection::connect(&url).await.expect("through the proxy");
    proxy.set(Wire::Stalled);
    {
        let ping = conn.ping();
        tokio::pin!(ping);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(100), &mut ping).await;
        assert!(waited.is_err(), "a stalled wire answered");
        proxy.set(Wire::Whole);
        ping.await.expect("the answer came late, and whole");
    }
    proxy.set(Wire::CutBack);
    assert!(conn.ping().await.is_err());
    proxy.set(Wire::Cut);
    assert!(PgConnection::connect(&url).await.is_err());
}
