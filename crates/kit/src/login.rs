//! Login roles of tenants that have a schema or a database of their own.
//!
//! In way 1 such a login is bound when it logs in: its tenant's number is its own value of the protected setting, which it cannot
//! write. In way 2 `insula.current_tenant()` finds the tenant by the login's name.

use insula_core::TenantNo;
use insula_core::placement::{OWNER_ROLE, SCHEMAS_DATABASE};
use sqlx::{Connection, PgConnection};

use crate::error::Error;
use crate::install::{current_database, use_schema};
use crate::server::{GUEST_ROLE, Way, hush, make_role, name, password, run};

/// Makes a tenant's login and its schema, lets it use that schema and nothing else, and binds it to the tenant. `conn` is
/// connected to the tenant's database, which `database` names. Repeatable; gives the password anew.
///
/// # Errors
/// When Postgres refuses.
pub async fn create_login(
    conn: &mut PgConnection,
    role: &str,
    secret: &str,
    no: TenantNo,
    database: &str,
    schema: &str,
) -> Result<(), Error> {
    let (role, database, schema, secret) = (name(role)?, name(database)?, name(schema)?, password(secret)?);
    let here = current_database(conn).await?;
    if here != database {
        return Err(Error::Privilege(format!("a login for database {database} is made from there, not from {here}")));
    }
    let way = Way::of_server(conn).await?;
    let mut tx = conn.begin().await?;
    hush(&mut tx, way).await?;
    let inherit = if database == SCHEMAS_DATABASE { "INHERIT" } else { "NOINHERIT" };
    make_role(&mut tx, role, &format!("LOGIN {inherit}"), way).await?;
    run(&mut tx, format!("ALTER ROLE {role} PASSWORD '{secret}'")).await?;
    if way == Way::Setting {
        run(&mut tx, format!("ALTER ROLE {role} SET backtrace_functions = '{no}'")).await?;
    }
    if database == SCHEMAS_DATABASE {
        run(&mut tx, format!("GRANT {GUEST_ROLE} TO {role}")).await?;
    }
    run(
        &mut tx,
        format!("SET LOCAL client_min_messages = 'warning'; CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {OWNER_ROLE}"),
    )
    .await?;
    one_at_a_time(&mut tx).await?;
    use_schema(&mut tx, role, schema).await?;
    tx.commit().await?;
    Ok(())
}

/// Rights on the kit's own schema and functions stand in one catalog row each, and Postgres refuses whoever changes a row that
/// another changes at the same moment ("tuple concurrently updated"). Until the transaction ends.
pub(crate) async fn one_at_a_time(conn: &mut PgConnection) -> Result<(), Error> {
    run(conn, "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('insula.rights'))".to_owned()).await
}

/// Refuses a login from now on and ends the sessions that it has: how a tenant with a login of its own is suspended or fenced.
///
/// # Errors
/// When Postgres refuses.
pub async fn disable_login(conn: &mut PgConnection, role: &str) -> Result<(), Error> {
    let role = name(role)?;
    run(conn, format!("ALTER ROLE {role} NOLOGIN")).await?;
    // A session that was logging in meanwhile shows up in a later round.
    for _ in 0..200 {
        let left: i64 = sqlx::query_scalar(
            "SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity WHERE usename = $1",
        )
        .bind(role)
        .fetch_one(&mut *conn)
        .await?;
        if left == 0 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Err(Error::Privilege(format!("sessions of {role} do not end")))
}

/// Lets a disabled login in again.
///
/// # Errors
/// When Postgres refuses.
pub async fn enable_login(conn: &mut PgConnection, role: &str) -> Result<(), Error> {
    run(conn, format!("ALTER ROLE {} LOGIN", name(role)?)).await
}

/// Ends a login for good: its sessions, its rights in this database, and the role. Nothing to do when it is not there.
///
/// # Errors
/// When Postgres refuses: for example because the role has rights in another database.
pub async fn drop_login(conn: &mut PgConnection, role: &str) -> Result<(), Error> {
    let role = name(role)?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)")
        .bind(role)
        .fetch_one(&mut *conn)
        .await?;
    if !exists {
        return Ok(());
    }
    disable_login(conn, role).await?;
    let mut tx = conn.begin().await?;
    if sqlx::query_scalar("SELECT to_regclass('insula.login') IS NOT NULL").fetch_one(&mut *tx).await? {
        sqlx::query("DELETE FROM insula.login WHERE role = $1").bind(role).execute(&mut *tx).await?;
    }
    one_at_a_time(&mut tx).await?;
    // The role owns nothing: this takes its privileges, here and on shared objects.
    run(&mut tx, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await?;
    tx.commit().await?;
    Ok(())
}
