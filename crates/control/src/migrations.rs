//! The application's bundle, carried out in a cell by the kit.

use sqlx::PgConnection;

use crate::cells::kit_in;
use crate::error::Error;
use crate::model::{Cell, Migration};
use crate::store::bundle::Stored;

/// Whether a schema has exactly what the bundle has so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// All of it.
    Current,
    /// Something is missing.
    Behind,
    /// It has one that the bundle does not have, or has otherwise.
    Foreign(i64),
}

pub(crate) fn of_kit(migration: &Migration) -> insula_kit::Migration<'_> {
    insula_kit::Migration { version: migration.version, name: &migration.name, sql: &migration.sql }
}

pub(crate) async fn prepare(conn: &mut PgConnection, cell: &Cell) -> Result<(), Error> {
    insula_kit::prepare_migrations(conn).await.map_err(kit_in(cell))
}

pub(crate) async fn standing(conn: &mut PgConnection, cell: &Cell, bundle: &Stored, schema: &str) -> Result<Standing, Error> {
    let all: Vec<_> = bundle.migrations.iter().map(of_kit).collect();
    Ok(match insula_kit::standing(conn, &all, schema).await.map_err(kit_in(cell))? {
        insula_kit::Standing::Current => Standing::Current,
        insula_kit::Standing::Behind(_) => Standing::Behind,
        insula_kit::Standing::Foreign(version) => Standing::Foreign(version),
    })
}

/// Applies what is missing, inside the transaction that is open on `conn`; says how many there were.
pub(crate) async fn apply(conn: &mut PgConnection, cell: &Cell, bundle: &Stored, schema: &str) -> Result<usize, Error> {
    let all: Vec<_> = bundle.migrations.iter().map(of_kit).collect();
    insula_kit::migrate(conn, &all, schema).await.map_err(kit_in(cell))
}

/// Refuses a database that could leak.
pub(crate) async fn refuse_leaks(conn: &mut PgConnection, cell: &Cell, database: &str) -> Result<(), Error> {
    insula_kit::refuse_leaks(conn, database).await.map_err(kit_in(cell))
}

/// Refuses a schema with a table that is not guarded.
pub(crate) async fn refuse_uncovered(conn: &mut PgConnection, cell: &Cell, schema: &str) -> Result<(), Error> {
    insula_kit::refuse_uncovered(conn, schema).await.map_err(kit_in(cell))
}
