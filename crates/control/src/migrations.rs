//! The application's migrations, carried out in one schema of one database.
//!
//! Always: as the owner of the tables and never as an administrator; what was applied is recorded beside the tables in the
//! same transaction, with its checksum, so that a crash can neither lose nor repeat one.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection};

use crate::cells::{in_cell, own_name};
use crate::error::{Error, sql_transient};
use crate::model::{Cell, Migration};
use crate::store::bundle::{Stored, checksum};

/// Makes the place where applied migrations are recorded. Part of preparing a database; clones bring theirs along.
pub(crate) async fn prepare(conn: &mut PgConnection, cell: &Cell) -> Result<(), Error> {
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS insula.migration (
             schema     text NOT NULL,
             version    bigint NOT NULL,
             name       text NOT NULL,
             checksum   bytea NOT NULL,
             applied_at timestamptz NOT NULL DEFAULT now(),
             PRIMARY KEY (schema, version)
         );
         ALTER TABLE insula.migration OWNER TO insula_owner;
         REVOKE ALL ON insula.migration FROM PUBLIC",
    )
    .execute(conn)
    .await
    .map_err(in_cell(cell))?;
    Ok(())
}

/// Versions of a schema and their checksums.
async fn applied(conn: &mut PgConnection, cell: &Cell, schema: &str) -> Result<BTreeMap<i64, Vec<u8>>, Error> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT version, checksum FROM insula.migration WHERE schema = $1")
        .bind(schema)
        .fetch_all(conn)
        .await
        .map_err(in_cell(cell))?;
    Ok(rows.into_iter().collect())
}

/// Whether a schema has exactly what the bundle has so far, and how much of it.
pub(crate) enum Standing {
    /// All of it.
    Current,
    /// These are missing.
    Behind(Vec<Migration>),
    /// It has one that the bundle does not have, or has otherwise.
    Foreign(i64),
}

pub(crate) async fn standing(conn: &mut PgConnection, cell: &Cell, bundle: &Stored, schema: &str) -> Result<Standing, Error> {
    let mut applied = applied(conn, cell, schema).await?;
    let mut missing = Vec::new();
    for migration in bundle.migrations.iter() {
        match applied.remove(&migration.version) {
            Some(sum) if sum == checksum(&migration.sql) => {}
            Some(_) => return Ok(Standing::Foreign(migration.version)),
            None => missing.push(migration.clone()),
        }
    }
    match applied.keys().next() {
        Some(version) => Ok(Standing::Foreign(*version)),
        None if missing.is_empty() => Ok(Standing::Current),
        None => Ok(Standing::Behind(missing)),
    }
}

/// Applies what is missing, inside the transaction that is open on `conn`; says how many there were.
pub(crate) async fn apply(conn: &mut PgConnection, cell: &Cell, bundle: &Stored, schema: &str) -> Result<usize, Error> {
    let missing = match standing(conn, cell, bundle, schema).await? {
        Standing::Current => return Ok(0),
        Standing::Behind(missing) => missing,
        Standing::Foreign(version) => {
            let text = format!(
                "schema {schema} in cell {} has a migration {version} that differs from the bundle's: it was made from another bundle",
                cell.name
            );
            return Err(Error::Conflict(text));
        }
    };
    let enter = format!("SET LOCAL ROLE insula_owner; SET LOCAL search_path = {}", own_name(schema)?);
    sqlx::raw_sql(AssertSqlSafe(enter)).execute(&mut *conn).await.map_err(in_cell(cell))?;
    for migration in &missing {
        run(conn, cell, migration).await?;
    }
    // RESET would go back to the login's own settings at once, but SET LOCAL by the migration itself must not leak on.
    sqlx::raw_sql("RESET search_path; RESET ROLE").execute(&mut *conn).await.map_err(in_cell(cell))?;
    record(conn, cell, schema, &missing).await?;
    Ok(missing.len())
}

async fn run(conn: &mut PgConnection, cell: &Cell, migration: &Migration) -> Result<(), Error> {
    match sqlx::raw_sql(AssertSqlSafe(migration.sql.clone())).execute(conn).await {
        Ok(_) => Ok(()),
        Err(error) if sql_transient(&error) => Err(in_cell(cell)(error)),
        Err(error) => Err(Error::Migration {
            version: migration.version,
            name: migration.name.clone(),
            detail: postgres_says(&error, &migration.sql),
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

async fn record(conn: &mut PgConnection, cell: &Cell, schema: &str, done: &[Migration]) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO insula.migration (schema, version, name, checksum)
         SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bytea[])",
    )
    .bind(schema)
    .bind(done.iter().map(|m| m.version).collect::<Vec<_>>())
    .bind(done.iter().map(|m| m.name.clone()).collect::<Vec<_>>())
    .bind(done.iter().map(|m| checksum(&m.sql)).collect::<Vec<_>>())
    .execute(conn)
    .await
    .map_err(in_cell(cell))?;
    Ok(())
}

/// Refuses a database that could leak.
pub(crate) async fn refuse_leaks(conn: &mut PgConnection, cell: &Cell, database: &str) -> Result<(), Error> {
    let findings = insula_kit::lint(conn).await.map_err(crate::cells::kit_in(cell))?;
    let grave: Vec<String> = findings
        .iter()
        .filter(|f| f.severity == insula_kit::Severity::Error)
        .map(|f| format!("{} ({}): {}", f.object, f.rule, f.detail))
        .collect();
    if grave.is_empty() { Ok(()) } else { Err(Error::Leaks { database: database.to_owned(), findings: grave.join("; ") }) }
}

/// Refuses a schema with a table that is not guarded: the part of the lint that a schema of a linted bundle could still
/// fail, and that does not grow with the number of schemas beside it.
pub(crate) async fn refuse_uncovered(conn: &mut PgConnection, cell: &Cell, schema: &str) -> Result<(), Error> {
    let bare: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c
         WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p', 'm', 'f')
           AND NOT EXISTS (SELECT FROM insula.shared s WHERE s.relation = c.oid)
           AND NOT (c.relrowsecurity AND c.relforcerowsecurity
                    AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant'))",
    )
    .bind(schema)
    .fetch_all(conn)
    .await
    .map_err(in_cell(cell))?;
    if bare.is_empty() {
        return Ok(());
    }
    let findings = format!("{}: not a tenant table: SELECT insula.tenant_table('…') after its CREATE TABLE", bare.join(", "));
    Err(Error::Leaks { database: format!("schema {schema}"), findings })
}
