//! New secrets for what is there already: after a root key was lost, or read by somebody.
//!
//! Always: what the old secrets opened stays closed from then on; the sessions that they opened are ended.

use insula_core::CellKey;
use insula_core::placement::{APP_ROLE, WATCH_ROLE, WORKER_ROLE};
use sqlx::{Connection, PgConnection};

use crate::error::Error;
use crate::install::{keep_key, keys_before};
use crate::server::{Way, hush, name, password, run};

/// Gives every login of applications on a server the password that follows from `key`, and ends the sessions that they have.
/// Says how many logins. One that was disabled stays so.
///
/// # Errors
/// What Postgres says; then nothing has changed.
pub async fn replace_passwords(admin: &mut PgConnection, key: &CellKey) -> Result<usize, Error> {
    let way = Way::of_server(admin).await?;
    let logins: Vec<String> = sqlx::query_scalar(
        "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname IN ($1, $2, $3) OR rolname ~ '^r[0-9a-f]{16}$' ORDER BY 1",
    )
    .bind(APP_ROLE)
    .bind(WATCH_ROLE)
    .bind(WORKER_ROLE)
    .fetch_all(&mut *admin)
    .await?;
    let mut tx = admin.begin().await?;
    hush(&mut tx, way).await?;
    for login in &logins {
        run(&mut tx, format!("ALTER ROLE {} PASSWORD '{}'", name(login)?, password(&key.role_password(login))?)).await?;
    }
    tx.commit().await?;
    sqlx::query("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = ANY ($1::name[])")
        .bind(&logins)
        .execute(admin)
        .await?;
    Ok(logins.len())
}

/// Replaces the grant keys of the database that `conn` is connected to, of every key id, by the one that follows from `key`. `false`
/// when the kit is not in there.
///
/// # Errors
/// What Postgres says; then nothing has changed.
pub async fn replace_keys(conn: &mut PgConnection, database: &str, key: &CellKey) -> Result<bool, Error> {
    let way = Way::of_server(conn).await?;
    let mut tx = conn.begin().await?;
    hush(&mut tx, way).await?;
    let Some((_, kid, _)) = keys_before(&mut tx).await? else { return Ok(false) };
    // The overlap of a rotation ends, too: its key is the old root's.
    sqlx::query("UPDATE insula.config SET previous_kid = NULL").execute(&mut *tx).await?;
    keep_key(&mut tx, kid, None, &key.grant_key(database, kid)).await?;
    tx.commit().await?;
    Ok(true)
}
