//! Pre-made databases in the catalog. One is there for the taking when its `schema_version` is that of the present bundle;
//! -1 means that it is being made, or unmade.

use insula_core::CellName;
use sqlx::PgConnection;

use crate::error::Error;

/// Being made or unmade.
pub(crate) const NOT_READY: i64 = -1;

/// Takes one for a tenant: it has the tenant's name in the catalog from now on; its old name is answered, for the rename.
pub(crate) async fn claim(conn: &mut PgConnection, cell: &CellName, becomes: &str) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar(
        "UPDATE catalog.cell_database d SET name = $2, purpose = 'tenant'
         FROM (SELECT name FROM catalog.cell_database
               WHERE cell = $1 AND purpose = 'warm'
                 AND schema_version = (SELECT coalesce(max(version), 0) FROM catalog.migration)
               ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED) w
         WHERE d.cell = $1 AND d.name = w.name RETURNING w.name",
    )
    .bind(cell.as_str())
    .bind(becomes)
    .fetch_optional(conn)
    .await?)
}

/// Takes all that are of another bundle, or half made, out of reach, and names them.
pub(crate) async fn retire(conn: &mut PgConnection, cell: &CellName, version: i64) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(
        "UPDATE catalog.cell_database SET schema_version = -1 WHERE cell = $1 AND purpose = 'warm' AND schema_version <> $2
         RETURNING name",
    )
    .bind(cell.as_str())
    .bind(version)
    .fetch_all(conn)
    .await?)
}

/// How many wait.
pub(crate) async fn count(conn: &mut PgConnection, cell: &CellName) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM catalog.cell_database WHERE cell = $1 AND purpose = 'warm' AND schema_version >= 0",
    )
    .bind(cell.as_str())
    .fetch_one(conn)
    .await?)
}

/// Names one that is about to be made.
pub(crate) async fn announce(conn: &mut PgConnection, cell: &CellName, name: &str) -> Result<(), Error> {
    sqlx::query("INSERT INTO catalog.cell_database (cell, name, purpose, schema_version) VALUES ($1, $2, 'warm', $3)")
        .bind(cell.as_str())
        .bind(name)
        .bind(NOT_READY)
        .execute(conn)
        .await?;
    Ok(())
}

/// It is made.
pub(crate) async fn ready(conn: &mut PgConnection, cell: &CellName, name: &str, version: i64) -> Result<(), Error> {
    sqlx::query("UPDATE catalog.cell_database SET schema_version = $3 WHERE cell = $1 AND name = $2 AND purpose = 'warm'")
        .bind(cell.as_str())
        .bind(name)
        .bind(version)
        .execute(conn)
        .await?;
    Ok(())
}

/// It is gone.
pub(crate) async fn forget(conn: &mut PgConnection, cell: &CellName, name: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM catalog.cell_database WHERE cell = $1 AND name = $2 AND purpose = 'warm'")
        .bind(cell.as_str())
        .bind(name)
        .execute(conn)
        .await?;
    Ok(())
}
