//! The roles and databases of one server.

use insula_core::CellKey;
use insula_core::placement::{APP_ROLE, MAINTENANCE_DATABASE, OWNER_ROLE, QUEUE_ROLE, WATCH_ROLE, WORKER_ROLE};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::error::Error;
use crate::version::{Version, check_version};

/// The group whose members may connect to the database of schema tenants; it has no other right.
pub(crate) const GUEST_ROLE: &str = "insula_guest";

/// How a transaction is bound to its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In a setting that only the kit's owner may write. Needs a superuser to install.
    Setting,
    /// In a signed ticket that is verified once per statement. Works on any server.
    Ticket,
}

impl Way {
    /// As `insula.way()` counts.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Setting => 1,
            Self::Ticket => 2,
        }
    }

    pub(crate) async fn of_server(conn: &mut PgConnection) -> Result<Self, Error> {
        let superuser: bool =
            sqlx::query_scalar("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").fetch_one(conn).await?;
        Ok(if superuser { Self::Setting } else { Self::Ticket })
    }
}

/// A server that is ready to be given databases.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// The way that databases on it will bind.
    pub way: Way,
    /// Its version.
    pub version: Version,
}

/// Quotes a name that Insula made; anything else is refused rather than quoted.
pub(crate) fn name(text: &str) -> Result<&str, Error> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    if first && text.len() <= 63 && text.bytes().all(plain) { Ok(text) } else { Err(Error::Name(text.to_owned())) }
}

/// A password as a literal: Insula's are hexadecimal, so nothing in them wants escaping.
pub(crate) fn password(text: &str) -> Result<&str, Error> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(text)
    } else {
        Err(Error::Name("a password with other characters than letters and digits".to_owned()))
    }
}

/// Runs one statement (or several) that takes no parameters.
pub(crate) async fn run(conn: &mut PgConnection, sql: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}

/// Keeps what follows in this transaction out of the server's log, where the server lets us (way 1): it has a secret in it.
pub(crate) async fn hush(conn: &mut PgConnection, way: Way) -> Result<(), Error> {
    if way == Way::Setting {
        run(
            conn,
            "SET LOCAL log_statement = 'none'; SET LOCAL log_min_error_statement = 'panic'; SET LOCAL log_min_duration_statement = -1; \
             SET LOCAL log_min_duration_sample = -1; SET LOCAL log_transaction_sample_rate = 0"
                .to_owned(),
        )
        .await?;
    }
    Ok(())
}

/// Makes the roles of a server, gives them their attributes back if somebody changed them, and those that log in their passwords.
///
/// # Errors
/// [`Error::Version`] for a server that cannot hold the boundary; [`Error::Privilege`] when the administrator may not make roles.
pub async fn prepare_server(admin: &mut PgConnection, key: &CellKey) -> Result<Server, Error> {
    let version = check_version(admin).await?;
    let way = Way::of_server(admin).await?;
    let allowed: bool = sqlx::query_scalar(
        "SELECT rolsuper OR (rolcreaterole AND rolcreatedb) FROM pg_catalog.pg_roles WHERE rolname = current_user",
    )
    .fetch_one(&mut *admin)
    .await?;
    if !allowed {
        return Err(Error::Privilege("the administrator's role needs CREATEROLE and CREATEDB (or superuser)".to_owned()));
    }
    let mut tx = admin.begin().await?;
    hush(&mut tx, way).await?;
    run(&mut tx, "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('insula.kit'))".to_owned()).await?;
    let roles = [
        (OWNER_ROLE, "NOLOGIN"),
        (GUEST_ROLE, "NOLOGIN"),
        (QUEUE_ROLE, "NOLOGIN"),
        (APP_ROLE, "LOGIN"),
        (WORKER_ROLE, "LOGIN NOINHERIT"),
        (WATCH_ROLE, "LOGIN NOINHERIT"),
    ];
    for (role, attributes) in roles {
        make_role(&mut tx, role, attributes, way).await?;
    }
    for role in [APP_ROLE, WORKER_ROLE, WATCH_ROLE] {
        run(&mut tx, format!("ALTER ROLE {role} PASSWORD '{}'", password(&key.role_password(role))?)).await?;
    }
    match way {
        // The binding, and the session's memory of grants that it has verified (020_bind_setting.sql), which only the owner reads.
        Way::Setting => {
            let grants = format!(
                "GRANT SET ON PARAMETER backtrace_functions, dynamic_library_path TO {OWNER_ROLE}; GRANT pg_read_all_settings TO {OWNER_ROLE}"
            );
            run(&mut tx, grants).await?;
            close_the_servers_own(&mut tx).await?;
            // How far the log has come is everybody's to ask there (in tenants' databases it is nobody's), so this is all it needs.
            if database_exists(&mut tx, MAINTENANCE_DATABASE).await? {
                run(&mut tx, format!("GRANT CONNECT ON DATABASE {MAINTENANCE_DATABASE} TO {WATCH_ROLE}")).await?;
            }
        }
        Way::Ticket => run(&mut tx, format!("GRANT {OWNER_ROLE}, {QUEUE_ROLE} TO CURRENT_USER")).await?,
    }
    tx.commit().await?;
    Ok(Server { way, version })
}

/// Takes CONNECT and TEMP from PUBLIC on the databases that every server has. They have no kit: whoever may connect there reads
/// the statements of his role's other sessions and ends them, and one login has the sessions of many tenants.
async fn close_the_servers_own(conn: &mut PgConnection) -> Result<(), Error> {
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT d.datname::text FROM pg_catalog.pg_database d
          WHERE d.datname IN ('postgres', 'template1') AND pg_catalog.has_database_privilege('public', d.oid, 'CONNECT')",
    )
    .fetch_all(&mut *conn)
    .await?;
    for database in open {
        run(conn, format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", name(&database)?)).await?;
    }
    Ok(())
}

/// A role without any attribute that could step around the boundary.
pub(crate) async fn make_role(conn: &mut PgConnection, role: &str, attributes: &str, way: Way) -> Result<(), Error> {
    let role = name(role)?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)")
        .bind(role)
        .fetch_one(&mut *conn)
        .await?;
    if !exists {
        run(conn, format!("CREATE ROLE {role}")).await?;
    }
    let plain = "NOCREATEDB NOCREATEROLE";
    match way {
        // Only a superuser may speak of these three, even to say no; a role made by anybody else never has them.
        Way::Setting => run(conn, format!("ALTER ROLE {role} {attributes} {plain} NOSUPERUSER NOREPLICATION NOBYPASSRLS")).await,
        Way::Ticket => run(conn, format!("ALTER ROLE {role} {attributes} {plain}")).await,
    }
}

async fn database_exists(admin: &mut PgConnection, database: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(admin)
        .await?)
}

/// Makes an empty database that nobody but the administrator may connect to, unless it is there.
///
/// # Errors
/// When Postgres refuses.
pub async fn create_database(admin: &mut PgConnection, database: &str) -> Result<(), Error> {
    make_database(admin, database, "template0 ENCODING 'UTF8'").await
}

/// Makes a database from a template, unless it is there. Privileges on a database are not part of a template, so this closes it.
///
/// # Errors
/// When Postgres refuses: for example while somebody is connected to the template.
pub async fn clone_database(admin: &mut PgConnection, database: &str, template: &str) -> Result<(), Error> {
    make_database(admin, database, name(template)?).await
}

async fn make_database(admin: &mut PgConnection, database: &str, template: &str) -> Result<(), Error> {
    if !database_exists(admin, name(database)?).await? {
        match run(admin, format!("CREATE DATABASE {database} TEMPLATE {template}")).await {
            // Somebody else made it just now: the name is taken by the time that either of these is said.
            Err(error) if matches!(error.sqlstate().as_deref(), Some("42P04" | "23505")) => {}
            made => made?,
        }
    }
    close_database(admin, database).await
}

/// Takes CONNECT and TEMP on a database from PUBLIC.
///
/// # Errors
/// When Postgres refuses.
pub async fn close_database(admin: &mut PgConnection, database: &str) -> Result<(), Error> {
    let database = name(database)?;
    let mut tx = admin.begin().await?;
    // A database's privileges are one row, and Postgres refuses whoever changes a row that another changes at the same moment.
    run(&mut tx, "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('insula.databases'))".to_owned()).await?;
    let closed: bool = sqlx::query_scalar(
        "SELECT NOT pg_catalog.has_database_privilege('public', d.oid, 'CONNECT')
            AND NOT pg_catalog.has_database_privilege('public', d.oid, 'TEMP')
            AND pg_catalog.has_database_privilege($2, d.oid, 'CONNECT') AND pg_catalog.has_database_privilege($3, d.oid, 'CONNECT')
           FROM pg_catalog.pg_database d WHERE d.datname = $1",
    )
    .bind(database)
    .bind(OWNER_ROLE)
    .bind(WORKER_ROLE)
    .fetch_one(&mut *tx)
    .await?;
    if !closed {
        let close = format!(
            "REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {OWNER_ROLE}, {WORKER_ROLE}"
        );
        run(&mut tx, close).await?;
    }
    tx.commit().await?;
    Ok(())
}
