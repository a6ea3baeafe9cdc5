//! The application's bundle, carried out in a cell by the kit.

use sqlx::PgConnection;

use crate::cells::kit_in;
use crate::error::Error;
use crate::handle::Control;
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

/// The same, waiting for no tenant's transaction for longer than a moment.
pub(crate) async fn apply_now(conn: &mut PgConnection, cell: &Cell, bundle: &Stored, schema: &str) -> Result<usize, Error> {
    let all: Vec<_> = bundle.migrations.iter().map(of_kit).collect();
    insula_kit::migrate_now(conn, &all, schema).await.map_err(kit_in(cell))
}

/// What waits for transactions that stay open, while the others go on.
#[derive(Default)]
pub(crate) struct Held(Vec<String>);

impl Held {
    /// Keeps what waits for later, with the names of those who are in the way; any other error is the caller's.
    pub(crate) async fn keep(&mut self, control: &Control, outcome: Result<(), Error>) -> Result<(), Error> {
        let Err(error) = outcome else { return Ok(()) };
        let Error::Kit { source: insula_kit::Error::Held { holders, .. }, .. } = &error else { return Err(error) };
        let numbers: Vec<i64> = holders.iter().filter_map(|holder| holder.tenant).collect();
        let slugs: Vec<(i64, String)> = sqlx::query_as("SELECT no, slug FROM catalog.tenant WHERE no = ANY($1) ORDER BY no")
            .bind(numbers)
            .fetch_all(control.catalog_pool())
            .await?;
        let names = slugs.iter().map(|(no, slug)| format!("; tenant {no} is {slug}"));
        let text = names.fold(error.to_string(), |text, name| text + &name);
        tracing::warn!(held = %text, "a migration waits for a transaction that stays open");
        self.0.push(text);
        Ok(())
    }

    /// Comes back later when anything waits.
    pub(crate) fn end(self) -> Result<(), Error> {
        const SHOWN: usize = 3;
        let more = self.0.len().saturating_sub(SHOWN);
        let mut text = self.0.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(". ");
        if more > 0 {
            text += &format!(". {more} more wait as well");
        }
        if text.is_empty() { Ok(()) } else { Err(Error::Away(text)) }
    }
}

/// Refuses a database that could leak.
pub(crate) async fn refuse_leaks(conn: &mut PgConnection, cell: &Cell, database: &str) -> Result<(), Error> {
    insula_kit::refuse_leaks(conn, database).await.map_err(kit_in(cell))
}

/// Refuses a schema with a table that is not guarded.
pub(crate) async fn refuse_uncovered(conn: &mut PgConnection, cell: &Cell, schema: &str) -> Result<(), Error> {
    insula_kit::refuse_uncovered(conn, schema).await.map_err(kit_in(cell))
}
