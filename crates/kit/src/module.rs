//! The server module: `insula.enter()` in C, where the operator offers it.
//!
//! A server offers it by a line in its configuration file, `insula.server_module = '/path/insula_enter.so'` (see
//! `docs/decisions/0005-server-module.md`). No session can offer it to another: the installer reads its own setting, which comes from
//! the file. Without the line the function stays what `sql/020_bind_setting.sql` makes it; both check the same in the same order.

use insula_core::placement::SERVER_MODULE_SETTING;
use sqlx::PgConnection;

use crate::error::Error;
use crate::server::run;

/// Replaces the body of `insula.enter()` when the server offers the module. Needs a superuser.
pub(crate) async fn load(conn: &mut PgConnection) -> Result<(), Error> {
    let path: Option<String> = sqlx::query_scalar("SELECT NULLIF(pg_catalog.current_setting($1, true), '')")
        .bind(SERVER_MODULE_SETTING)
        .fetch_one(&mut *conn)
        .await?;
    let Some(path) = path else { return Ok(()) };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-$+".contains(c);
    if !(path.starts_with('/') || path.starts_with("$libdir/")) || !path.chars().all(plain) {
        return Err(Error::Name(path));
    }
    run(
        conn,
        format!(
            "CREATE OR REPLACE FUNCTION insula.enter(no bigint, epoch bigint, expires bigint, fence bigint, kid integer, mac bytea)
             RETURNS void LANGUAGE c VOLATILE STRICT AS '{path}', 'insula_enter'"
        ),
    )
    .await
}
