//! Where a tenant of isolation `cell` gets its cell: a registered one that is free, or a new embedded one.
//!
//! Always: taken and given back in the catalog, inside the transaction of the step that needs it; the server itself is
//! somebody else's to start and stop.

pub(crate) mod embedded;
pub(crate) mod registered;

use insula_core::CellName;
use sqlx::PgConnection;

use crate::error::Error;
use crate::model::Provider;
use crate::provision::Input;
use crate::store;

/// Takes a cell for a tenant.
pub(crate) async fn take(conn: &mut PgConnection, input: &Input, embedded_cells: bool) -> Result<CellName, Error> {
    if let Some(cell) = registered::take(conn, input).await? {
        return Ok(cell);
    }
    if embedded_cells && input.cell.is_none() {
        return embedded::request(conn, input).await;
    }
    Err(Error::Full("no registered cell that would do is free: register one with `insula cell register --dedicated`".into()))
}

/// Gives a cell back.
pub(crate) async fn give_back(conn: &mut PgConnection, cell: &CellName) -> Result<(), Error> {
    match store::cells::get(conn, cell).await? {
        Some(found) if found.provider == Provider::Registered => registered::free(conn, cell).await,
        Some(_) => embedded::remove(conn, cell).await,
        None => Ok(()),
    }
}
