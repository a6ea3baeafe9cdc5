//! The test servers themselves.

use insula_testkit::{second_server, server};
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
