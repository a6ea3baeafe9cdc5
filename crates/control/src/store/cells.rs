//! Cells and their databases.

use insula_api::cell::{AppVersion, Replica};
use insula_core::CellName;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::plans::{json, parse, to_json};
use crate::config::CellSpec;
use crate::error::Error;
use crate::model::{Cell, CellState, Page, PageRequest, Provider, RegisterCell};

/// All of a cell, with the number of its tenants. `placement_cell` serves the count.
macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT c.*, (SELECT count(*) FROM catalog.placement p WHERE p.cell = c.name) AS tenants FROM catalog.cell c ",
            $tail
        )
    };
}

pub(crate) fn read(row: &PgRow) -> Result<Cell, Error> {
    let name: String = row.try_get("name")?;
    let port: Option<i32> = row.try_get("port")?;
    Ok(Cell {
        name: parse("cell name", name.parse())?,
        region: row.try_get("region")?,
        labels: row.try_get("labels")?,
        provider: json("cell provider", row.try_get::<String, _>("provider")?.into())?,
        state: json("cell state", row.try_get::<String, _>("state")?.into())?,
        dedicated: row.try_get("dedicated")?,
        host: row.try_get("host")?,
        port: port.map(|p| parse("port", u16::try_from(p))).transpose()?,
        tls: row.try_get("tls")?,
        admin_role: row.try_get("admin_role")?,
        app_url: row.try_get("app_url")?,
        app_versions: json("list of applications", row.try_get("app_versions")?)?,
        replicas: json("list of replicas", row.try_get("replicas")?)?,
        capacity: row.try_get("capacity")?,
        tenants: row.try_get("tenants")?,
        kit_way: row.try_get("kit_way")?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
    })
}

/// The word that the catalog has for a state or a provider.
pub(crate) fn word<T: serde::Serialize>(value: T) -> Result<String, Error> {
    match to_json(&value)? {
        serde_json::Value::String(text) => Ok(text),
        other => Err(Error::Corrupt(format!("{other} is no word"))),
    }
}

pub(crate) async fn get(conn: &mut PgConnection, name: &CellName) -> Result<Option<Cell>, Error> {
    let row = sqlx::query(select!("WHERE c.name = $1")).bind(name.as_str()).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

/// As [`get`], and nobody else changes it until the transaction ends.
pub(crate) async fn lock(conn: &mut PgConnection, name: &CellName) -> Result<Option<Cell>, Error> {
    let row = sqlx::query(select!("WHERE c.name = $1 FOR UPDATE OF c")).bind(name.as_str()).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

pub(crate) async fn all(conn: &mut PgConnection) -> Result<Vec<Cell>, Error> {
    sqlx::query(select!("ORDER BY c.name")).fetch_all(conn).await?.iter().map(read).collect()
}

pub(crate) async fn list(conn: &mut PgConnection, page: &PageRequest) -> Result<Page<Cell>, Error> {
    let rows = sqlx::query(select!("WHERE c.name > $1 ORDER BY c.name LIMIT $2"))
        .bind(page.name_key()?)
        .bind(page.rows())
        .fetch_all(conn)
        .await?;
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page.page(items, |c| c.name.to_string()))
}

/// Inserts a registered cell; false when the name is taken.
pub(crate) async fn insert_registered(conn: &mut PgConnection, cell: &RegisterCell) -> Result<bool, Error> {
    let state = if cell.dedicated { CellState::Free } else { CellState::Requested };
    let done = sqlx::query(
        "INSERT INTO catalog.cell (name, region, labels, provider, state, host, port, tls, app_url, capacity)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (name) DO NOTHING",
    )
    .bind(cell.name.as_str())
    .bind(&cell.region)
    .bind(&cell.labels)
    .bind(word(Provider::Registered)?)
    .bind(word(state)?)
    .bind(&cell.host)
    .bind(i32::from(cell.port))
    .bind(&cell.tls)
    .bind(&cell.app_url)
    .bind(cell.capacity)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Puts a cell that runs already into the catalog, or its new address. Writes nothing (and so no change) when all is as it was.
pub(crate) async fn put_running(conn: &mut PgConnection, cell: &CellSpec) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO catalog.cell AS c (name, region, labels, provider, state, host, port, app_url, capacity)
         VALUES ($1, $2, $3, 'embedded', 'ready', $4, $5, $6, $7)
         ON CONFLICT (name) DO UPDATE SET region = excluded.region, labels = excluded.labels, host = excluded.host,
             port = excluded.port, app_url = excluded.app_url, version = c.version + 1, updated_at = now()
         WHERE (c.region, c.labels, c.host, c.port, c.app_url)
             IS DISTINCT FROM (excluded.region, excluded.labels, excluded.host, excluded.port, excluded.app_url)",
    )
    .bind(cell.name.as_str())
    .bind(&cell.region)
    .bind(&cell.labels)
    .bind(&cell.host)
    .bind(i32::from(cell.port))
    .bind(&cell.app_url)
    .bind(cell.capacity)
    .execute(conn)
    .await?;
    Ok(())
}

/// Moves a cell from one of the states `from` to `to`; false when it is in none of them.
pub(crate) async fn set_state(
    conn: &mut PgConnection,
    name: &CellName,
    from: &[CellState],
    to: CellState,
) -> Result<bool, Error> {
    let from = from.iter().map(word).collect::<Result<Vec<_>, _>>()?;
    let done = sqlx::query(
        "UPDATE catalog.cell SET state = $3, version = version + 1, updated_at = now() WHERE name = $1 AND state = ANY ($2)",
    )
    .bind(name.as_str())
    .bind(&from)
    .bind(word(to)?)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that a cell is prepared, and which binding of the kit is in force there.
pub(crate) async fn set_prepared(conn: &mut PgConnection, name: &CellName, way: i32) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.cell SET kit_way = $2, state = CASE state WHEN 'requested' THEN 'ready' ELSE state END,
             version = version + 1, updated_at = now()
         WHERE name = $1 AND (kit_way IS DISTINCT FROM $2 OR state = 'requested')",
    )
    .bind(name.as_str())
    .bind(way)
    .execute(conn)
    .await?;
    Ok(())
}

/// Says which application stacks a cell has; false when there is no such cell.
pub(crate) async fn set_apps(conn: &mut PgConnection, name: &CellName, apps: &[AppVersion]) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE catalog.cell SET app_versions = $2, version = version + 1, updated_at = now()
         WHERE name = $1 AND app_versions <> $2",
    )
    .bind(name.as_str())
    .bind(to_json(&apps)?)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Says which standbys a cell's server has; false when nothing changed.
pub(crate) async fn set_replicas(conn: &mut PgConnection, name: &CellName, replicas: &[Replica]) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE catalog.cell SET replicas = $2, version = version + 1, updated_at = now() WHERE name = $1 AND replicas <> $2",
    )
    .bind(name.as_str())
    .bind(to_json(&replicas)?)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The grant key in force in a database.
pub(crate) async fn grant_kid(conn: &mut PgConnection, cell: &CellName, database: &str) -> Result<i32, Error> {
    let kid = sqlx::query_scalar("SELECT kid FROM catalog.cell_database WHERE cell = $1 AND name = $2")
        .bind(cell.as_str())
        .bind(database)
        .fetch_optional(conn)
        .await?;
    kid.ok_or_else(|| Error::not_found("database", database))
}

/// Notes a shared database of a cell, and its fence.
pub(crate) async fn put_database(
    conn: &mut PgConnection,
    cell: &CellName,
    database: &str,
    purpose: &str,
    fence: i64,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO catalog.cell_database AS d (cell, name, purpose, fence) VALUES ($1, $2, $3, $4)
         ON CONFLICT (cell, name) DO UPDATE SET fence = excluded.fence WHERE d.fence < excluded.fence",
    )
    .bind(cell.as_str())
    .bind(database)
    .bind(purpose)
    .bind(fence)
    .execute(conn)
    .await?;
    Ok(())
}

/// Publishes a fence. Every change of a tenant that came before it must be committed in the catalog already: who suspends or
/// moves a tenant says so in the catalog first, and fences its database after.
pub(crate) async fn raise_fence(conn: &mut PgConnection, cell: &CellName, database: &str, fence: i64) -> Result<(), Error> {
    sqlx::query("UPDATE catalog.cell_database SET fence = $3 WHERE cell = $1 AND name = $2 AND fence < $3")
        .bind(cell.as_str())
        .bind(database)
        .bind(fence)
        .execute(conn)
        .await?;
    Ok(())
}

/// Databases with a queue that somebody always works on, by cell: those that many tenants share, and that of a dedicated cell's tenant.
pub(crate) async fn queues(conn: &mut PgConnection) -> Result<Vec<(String, String)>, Error> {
    let rows = sqlx::query_as(
        "SELECT c.name, d.name FROM catalog.cell c JOIN catalog.cell_database d ON d.cell = c.name
         WHERE d.purpose IN ('pool', 'schemas') OR (c.dedicated AND d.purpose = 'tenant') ORDER BY c.name, d.name",
    );
    Ok(rows.fetch_all(conn).await?)
}

/// Databases of single tenants that are made, by cell, in cells that are up.
pub(crate) async fn tenant_databases(conn: &mut PgConnection) -> Result<Vec<(String, String)>, Error> {
    let rows = sqlx::query_as(
        "SELECT d.cell, d.name FROM catalog.cell_database d JOIN catalog.cell c ON c.name = d.cell
         WHERE d.purpose = 'tenant' AND c.state IN ('ready', 'draining')
           AND EXISTS (SELECT FROM catalog.placement p JOIN catalog.tenant t ON t.id = p.tenant
                       WHERE p.cell = d.cell AND p.database = d.name AND t.state IN ('active', 'suspended'))
         ORDER BY d.cell, d.name",
    );
    Ok(rows.fetch_all(conn).await?)
}
