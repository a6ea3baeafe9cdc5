//! The application's migrations, carried out in one schema of one database.
//!
//! Always: as the owner of the tables and never as an administrator; what was applied is recorded beside the tables in the
//! same transaction, with its checksum, so that a crash can neither lose nor repeat one.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::error::{Error, transient};
use crate::holder::holders;
use crate::install::WAIT;
use crate::lint::{Severity, lint};
use crate::server::{name, run as run_sql};

/// Between tries.
const PAUSES: [Duration; 5] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(15)];

/// A step of the application's schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration<'a> {
    /// Counts up from 1.
    pub version: i64,
    /// What it does.
    pub name: &'a str,
    /// Unqualified: the `search_path` decides.
    pub sql: &'a str,
}

impl Migration<'_> {
    /// SHA-256 of its SQL.
    #[must_use]
    pub fn checksum(&self) -> Vec<u8> {
        digest(&SHA256, self.sql.as_bytes()).as_ref().to_vec()
    }
}

/// Whether a schema has exactly the application's migrations so far, and how many of them.
#[derive(Debug)]
pub enum Standing<'a> {
    /// All of them.
    Current,
    /// These are missing.
    Behind(Vec<Migration<'a>>),
    /// It has one that the application does not have, or has otherwise.
    Foreign(i64),
}

/// Makes the place where applied migrations are recorded. Part of preparing a database; clones bring theirs along.
///
/// # Errors
/// What Postgres says.
pub async fn prepare_migrations(conn: &mut PgConnection) -> Result<(), Error> {
    let sql = "CREATE TABLE IF NOT EXISTS insula.migration (
             schema     text NOT NULL,
             version    bigint NOT NULL,
             name       text NOT NULL,
             checksum   bytea NOT NULL,
             applied_at timestamptz NOT NULL DEFAULT now(),
             PRIMARY KEY (schema, version)
         );
         ALTER TABLE insula.migration OWNER TO insula_owner;
         REVOKE ALL ON insula.migration FROM PUBLIC";
    run_sql(conn, sql.to_owned()).await
}

/// Versions of a schema and their checksums.
async fn applied(conn: &mut PgConnection, schema: &str) -> Result<BTreeMap<i64, Vec<u8>>, Error> {
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM insula.migration WHERE schema = $1").bind(schema).fetch_all(conn).await?;
    Ok(rows.into_iter().collect())
}

/// How a schema stands to the application's migrations.
///
/// # Errors
/// What Postgres says.
pub async fn standing<'a>(conn: &mut PgConnection, all: &[Migration<'a>], schema: &str) -> Result<Standing<'a>, Error> {
    let mut applied = applied(conn, schema).await?;
    let mut missing = Vec::new();
    for migration in all {
        match applied.remove(&migration.version) {
            Some(sum) if sum == migration.checksum() => {}
            Some(_) => return Ok(Standing::Foreign(migration.version)),
            None => missing.push(*migration),
        }
    }
    match applied.keys().next() {
        Some(version) => Ok(Standing::Foreign(*version)),
        None if missing.is_empty() => Ok(Standing::Current),
        None => Ok(Standing::Behind(missing)),
    }
}

/// Applies what is missing, inside the transaction that is open on `conn`; says how many there were. Who uses a table is waited for a moment at a time, with
/// pauses in which others go on, for half a minute.
///
/// # Errors
/// As [`migrate_now`].
pub async fn migrate(conn: &mut PgConnection, all: &[Migration<'_>], schema: &str) -> Result<usize, Error> {
    for pause in PAUSES {
        match migrate_now(conn, all, schema).await {
            Err(error @ Error::Held { .. }) => {
                tracing::info!(%error, "trying again a little later");
                tokio::time::sleep(pause).await;
            }
            outcome => return outcome,
        }
    }
    migrate_now(conn, all, schema).await
}

/// The same, waiting for nobody for longer than a moment. When it fails, the transaction is as it was before.
///
/// # Errors
/// [`Error::Foreign`], [`Error::Migration`], [`Error::Held`], or what Postgres says.
pub async fn migrate_now(conn: &mut PgConnection, all: &[Migration<'_>], schema: &str) -> Result<usize, Error> {
    // One at a time in a schema: who comes second finds it done.
    sqlx::query("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('insula.migrate'), pg_catalog.hashtext($1))")
        .bind(schema)
        .execute(&mut *conn)
        .await?;
    let missing = match standing(conn, all, schema).await? {
        Standing::Current => return Ok(0),
        Standing::Behind(missing) => missing,
        Standing::Foreign(version) => return Err(Error::Foreign { schema: schema.to_owned(), version }),
    };
    // Taken back whole, its locks with it: whoever stands behind them goes on.
    let mut step = conn.begin().await?;
    for migration in &missing {
        // Anew for each: what one sets is not for the next.
        let sql =
            format!("SET LOCAL ROLE insula_owner; SET LOCAL search_path = {}; SET LOCAL lock_timeout = '{WAIT}'", name(schema)?);
        run_sql(&mut step, sql).await?;
        match run(&mut step, migration).await {
            Err(Error::Database(error)) if is_held(&error) => {
                step.rollback().await?;
                let holders = holders(conn, schema).await?;
                let (version, name) = (migration.version, migration.name.to_owned());
                return Err(Error::Held { version, name, schema: schema.to_owned(), holders });
            }
            outcome => outcome?,
        }
    }
    // RESET would go back to the login's own settings at once, but SET LOCAL by the migration itself must not leak on.
    run_sql(&mut step, "RESET lock_timeout; RESET search_path; RESET ROLE".to_owned()).await?;
    record(&mut step, schema, &missing).await?;
    step.commit().await?;
    Ok(missing.len())
}

fn is_held(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"))
}

async fn run(conn: &mut PgConnection, migration: &Migration<'_>) -> Result<(), Error> {
    match sqlx::raw_sql(AssertSqlSafe(migration.sql.to_owned())).execute(conn).await {
        Ok(_) => Ok(()),
        Err(error) if transient(&error) => Err(error.into()),
        Err(error) => Err(Error::Migration {
            version: migration.version,
            name: migration.name.to_owned(),
            detail: postgres_says(&error, migration.sql),
        }),
    }
}

/// The message with its hint and the line that it is about.
fn postgres_says(error: &sqlx::Error, sql: &str) -> String {
    let Some(error) = error.as_database_error() else { return error.to_string() };
    let mut text = error.message().to_owned();
    if let Some(detail) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        if let Some(hint) = detail.hint() {
            text += &format!(". {hint}");
        }
        if let Some(sqlx::postgres::PgErrorPosition::Original(at)) = detail.position() {
            let line = sql.chars().take(at.saturating_sub(1)).filter(|c| *c == '\n').count() + 1;
            text += &format!(" (line {line})");
        }
    }
    text
}

async fn record(conn: &mut PgConnection, schema: &str, done: &[Migration<'_>]) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO insula.migration (schema, version, name, checksum)
         SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bytea[])",
    )
    .bind(schema)
    .bind(done.iter().map(|m| m.version).collect::<Vec<_>>())
    .bind(done.iter().map(|m| m.name.to_owned()).collect::<Vec<_>>())
    .bind(done.iter().map(Migration::checksum).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Refuses a database that could leak.
///
/// # Errors
/// [`Error::Leaks`].
pub async fn refuse_leaks(conn: &mut PgConnection, database: &str) -> Result<(), Error> {
    let findings = lint(conn).await?;
    let grave: Vec<String> = findings
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .map(|f| format!("{} ({}): {}", f.object, f.rule, f.detail))
        .collect();
    if grave.is_empty() { Ok(()) } else { Err(Error::Leaks { place: database.to_owned(), findings: grave.join("; ") }) }
}

/// Refuses a schema with a table that is not guarded: the part of the lint that a schema of a linted bundle could still
/// fail, and that does not grow with the number of schemas beside it.
///
/// # Errors
/// [`Error::Leaks`].
pub async fn refuse_uncovered(conn: &mut PgConnection, schema: &str) -> Result<(), Error> {
    let bare: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c
         WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p', 'm', 'f')
           AND NOT EXISTS (SELECT FROM insula.shared s WHERE s.relation = c.oid)
           AND NOT (c.relrowsecurity AND c.relforcerowsecurity
                    AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant'))",
    )
    .bind(schema)
    .fetch_all(conn)
    .await?;
    if bare.is_empty() {
        return Ok(());
    }
    let findings = format!("{}: not a tenant table: SELECT insula.tenant_table('…') after its CREATE TABLE", bare.join(", "));
    Err(Error::Leaks { place: format!("schema {schema}"), findings })
}
