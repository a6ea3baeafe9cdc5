//! Proves that nothing is orphaned: compares what the cells have with what the catalog says that they have.
//!
//! Always: whatever is made is named in the catalog before and forgotten there after; so a thing that no row names, looked
//! for *after* the thing was seen, is a leftover, and only that is cleaned.

use std::collections::BTreeSet;
use std::fmt;

use insula_core::placement::{POOL_DATABASE, SCHEMAS_DATABASE, role_of};
use insula_core::{CellName, TenantNo};
use sqlx::PgConnection;

use crate::cell_prepare::drop_database;
use crate::cells::{MAINTENANCE, in_cell, kit_in};
use crate::error::Error;
use crate::handle::Control;
use crate::model::{Cell, CellState};
use crate::provision::remove;
use crate::store;

/// A thing that nobody owns, or an owner whose thing is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Orphan {
    /// A database that no row of the catalog names.
    Database(CellName, String),
    /// A schema that no placement names.
    Schema(CellName, String),
    /// A login whose database or schema no placement names.
    Role(CellName, String),
    /// A tenant that a database knows and the catalog does not place there.
    Tenant(CellName, String, i64),
    /// A tenant that the catalog places in a database which does not know it.
    Missing(CellName, String, i64),
    /// A tenant in the making on which no operation is at work.
    Abandoned(i64),
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(cell, name) => write!(f, "database {name} in cell {cell} belongs to nobody"),
            Self::Schema(cell, name) => write!(f, "schema {name} in cell {cell} belongs to nobody"),
            Self::Role(cell, name) => write!(f, "role {name} in cell {cell} belongs to nobody"),
            Self::Tenant(cell, database, no) => {
                write!(f, "tenant {no} is known in {database} of cell {cell} and not placed there")
            }
            Self::Missing(cell, database, no) => {
                write!(f, "tenant {no} is placed in {database} of cell {cell} and not known there")
            }
            Self::Abandoned(no) => write!(f, "tenant {no} is in the making and nobody is making it"),
        }
    }
}

/// What a cell's server has that carries a name of ours.
#[derive(Default)]
struct Seen {
    databases: BTreeSet<String>,
    roles: BTreeSet<String>,
    schemas: BTreeSet<String>,
    /// Tenants by shared database.
    tenants: BTreeSet<(String, i64)>,
}

/// What the catalog says of a cell.
#[derive(Default)]
struct Known {
    databases: BTreeSet<String>,
    schemas: BTreeSet<String>,
    /// All that have a place, in the making or not.
    tenants: BTreeSet<(String, i64)>,
    /// Those that are made.
    made: BTreeSet<(String, i64)>,
}

/// Compares the catalog with every cell that can be reached. Empty: nothing is orphaned.
///
/// # Errors
/// When the catalog or a cell does not answer: then nothing is proven.
pub async fn orphans(control: &Control) -> Result<Vec<Orphan>, Error> {
    let mut found = look(control).await?;
    if !found.is_empty() {
        // What was taken away between our look at the cell and our look at the catalog is not there any more.
        let again = look(control).await?;
        found.retain(|orphan| again.contains(orphan));
    }
    Ok(found)
}

async fn look(control: &Control) -> Result<Vec<Orphan>, Error> {
    let cells = store::cells::all(&mut *control.catalog_pool().acquire().await?).await?;
    let mut found = abandoned(control).await?;
    for cell in cells.iter().filter(|c| is_reachable(c)) {
        found.extend(orphans_of(control, cell).await?);
    }
    found.sort();
    Ok(found)
}

/// Cleans what [`orphans`] finds and can be cleaned; answers with what is left.
///
/// # Errors
/// As [`orphans`].
pub async fn clean(control: &Control) -> Result<Vec<Orphan>, Error> {
    for orphan in orphans(control).await? {
        tracing::warn!(%orphan, "cleaning a leftover");
        clean_one(control, &orphan).await?;
    }
    orphans(control).await
}

fn is_reachable(cell: &Cell) -> bool {
    cell.host.is_some() && !matches!(cell.state, CellState::Removing | CellState::Down | CellState::Requested)
}

async fn orphans_of(control: &Control, cell: &Cell) -> Result<Vec<Orphan>, Error> {
    // First what is there, then who owns it: see the module.
    let seen = seen(control, cell).await?;
    let known = known(control, cell).await?;
    let name = || cell.name.clone();
    let mut found = Vec::new();
    found.extend(seen.databases.difference(&known.databases).map(|d| Orphan::Database(name(), d.clone())));
    found.extend(seen.schemas.difference(&known.schemas).map(|s| Orphan::Schema(name(), s.clone())));
    let roles: BTreeSet<String> = known.databases.iter().chain(&known.schemas).map(|n| role_of(n)).collect();
    found.extend(seen.roles.difference(&roles).map(|r| Orphan::Role(name(), r.clone())));
    found.extend(seen.tenants.difference(&known.tenants).map(|(d, no)| Orphan::Tenant(name(), d.clone(), *no)));
    let shared = |d: &str| d == POOL_DATABASE || d == SCHEMAS_DATABASE;
    let missing = known.made.difference(&seen.tenants).filter(|(d, _)| shared(d) || !seen.databases.contains(d));
    found.extend(missing.map(|(d, no)| Orphan::Missing(name(), d.clone(), *no)));
    Ok(found)
}

async fn names(conn: &mut PgConnection, cell: &Cell, sql: &'static str) -> Result<BTreeSet<String>, Error> {
    let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(conn).await.map_err(in_cell(cell))?;
    Ok(names.into_iter().collect())
}

async fn seen(control: &Control, cell: &Cell) -> Result<Seen, Error> {
    let mut seen = Seen::default();
    let mut admin = control.cells().connect(cell, MAINTENANCE).await?;
    let all = names(&mut admin, cell, "SELECT datname::text FROM pg_database").await?;
    seen.databases = all.iter().filter(|d| is_opaque(d, "dw")).cloned().collect();
    seen.roles = names(&mut admin, cell, "SELECT rolname::text FROM pg_roles WHERE rolname ~ '^r[0-9a-f]{16}$'").await?;
    for database in [POOL_DATABASE, SCHEMAS_DATABASE].into_iter().filter(|d| all.contains(*d)) {
        let mut conn = control.cells().connect(cell, database).await?;
        if database == SCHEMAS_DATABASE {
            seen.schemas =
                names(&mut conn, cell, "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^s[0-9a-f]{16}$'").await?;
        }
        let tenants: Vec<i64> =
            sqlx::query_scalar("SELECT no FROM insula.tenant").fetch_all(&mut conn).await.map_err(in_cell(cell))?;
        seen.tenants.extend(tenants.into_iter().map(|no| (database.to_owned(), no)));
    }
    Ok(seen)
}

fn is_opaque(name: &str, first: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    name.len() == 17 && name.starts_with(|c| first.contains(c)) && name.bytes().skip(1).all(hex)
}

async fn known(control: &Control, cell: &Cell) -> Result<Known, Error> {
    let mut known = Known::default();
    let mut conn = control.catalog_pool().acquire().await?;
    let databases: Vec<String> = sqlx::query_scalar("SELECT name FROM catalog.cell_database WHERE cell = $1")
        .bind(cell.name.as_str())
        .fetch_all(&mut *conn)
        .await?;
    known.databases = databases.into_iter().collect();
    let places: Vec<(String, String, String, i64, bool)> = sqlx::query_as(
        "SELECT p.isolation, p.database, p.schema, t.no, t.state <> 'provisioning'
         FROM catalog.placement p JOIN catalog.tenant t ON t.id = p.tenant WHERE p.cell = $1",
    )
    .bind(cell.name.as_str())
    .fetch_all(&mut *conn)
    .await?;
    for (isolation, database, schema, no, made) in places {
        if isolation == "schema" {
            known.schemas.insert(schema);
        }
        if made {
            known.made.insert((database.clone(), no));
        }
        known.tenants.insert((database, no));
    }
    // A pre-made database whose rename is under way still has its old name.
    let renaming: Vec<String> = sqlx::query_scalar(
        "SELECT o.memo #>> '{home,warm}' FROM catalog.operation o
         WHERE o.state IN ('pending', 'running', 'undoing') AND o.memo #>> '{home,cell}' = $1 AND o.memo #>> '{home,warm}' IS NOT NULL",
    )
    .bind(cell.name.as_str())
    .fetch_all(&mut *conn)
    .await?;
    known.databases.extend(renaming);
    Ok(known)
}

/// Tenants in the making whose operation is over, or was never written.
async fn abandoned(control: &Control) -> Result<Vec<Orphan>, Error> {
    let numbers: Vec<i64> = sqlx::query_scalar(
        "SELECT t.no FROM catalog.tenant t WHERE t.state = 'provisioning'
           AND NOT EXISTS (SELECT FROM catalog.operation o WHERE o.tenant = t.id AND o.state IN ('pending', 'running', 'undoing'))",
    )
    .fetch_all(control.catalog_pool())
    .await?;
    Ok(numbers.into_iter().map(Orphan::Abandoned).collect())
}

async fn clean_one(control: &Control, orphan: &Orphan) -> Result<(), Error> {
    match orphan {
        Orphan::Database(cell, name) => {
            let cell = control.cell(cell).await?;
            let mut admin = control.cells().connect(&cell, MAINTENANCE).await?;
            drop_database(&mut admin, &cell, name).await
        }
        Orphan::Schema(cell, name) => {
            let cell = control.cell(cell).await?;
            remove::remove_schema(control, &cell, SCHEMAS_DATABASE, name, &role_of(name), None).await
        }
        Orphan::Role(cell, name) => {
            let cell = control.cell(cell).await?;
            let mut admin = control.cells().connect(&cell, MAINTENANCE).await?;
            insula_kit::drop_login(&mut admin, name).await.map_err(kit_in(&cell))
        }
        Orphan::Tenant(cell, database, no) => {
            let cell = control.cell(cell).await?;
            let no = TenantNo::new(*no).ok_or_else(|| Error::Corrupt(format!("tenant number {no}")))?;
            remove::remove_rows(control, &cell, database, no).await
        }
        // Nothing to clean: somebody has to look.
        Orphan::Missing(..) | Orphan::Abandoned(_) => Ok(()),
    }
}
