//! Keeps pre-made databases in each cell, so that a tenant with a database of its own waits for a rename and not for a clone.
//!
//! Always: a database is named in the catalog before it is made and forgotten there after it is gone; one of an older
//! bundle is out of reach before it is dropped.

use insula_core::placement::TEMPLATE_DATABASE;
use sqlx::Connection as _;

use crate::cell_prepare::drop_database;
use crate::cells::{MAINTENANCE, in_cell, kit_in};
use crate::error::Error;
use crate::handle::Control;
use crate::model::{Cell, CellState};
use crate::store;

/// Brings every cell to its number. One cell's trouble is not another's.
pub(crate) async fn reconcile(control: &Control) -> Result<(), Error> {
    let cells = store::cells::all(&mut *control.catalog_pool().acquire().await?).await?;
    for cell in cells.iter().filter(|c| !c.dedicated && c.state == CellState::Ready && c.kit_way.is_some()) {
        if let Err(error) = reconcile_cell(control, cell).await {
            tracing::warn!(cell = %cell.name, %error, "cannot keep pre-made databases");
        }
    }
    Ok(())
}

async fn reconcile_cell(control: &Control, cell: &Cell) -> Result<(), Error> {
    let version = control.bundle().await?.version();
    if version == 0 {
        // Before there is an application, whatever is made would be thrown away with its first bundle.
        return Ok(());
    }
    let mut conn = control.catalog_pool().acquire().await?;
    // One process at a time makes them in a cell; the others look again later.
    let mut turn = control.catalog_pool().begin().await?;
    let ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('warm ' || $1, 0))")
        .bind(cell.name.as_str())
        .fetch_one(&mut *turn)
        .await?;
    if !ours {
        return Ok(());
    }
    for name in store::warm::retire(&mut conn, &cell.name, version).await? {
        let pool = control.cells().pool(cell, MAINTENANCE)?;
        let mut admin = pool.acquire().await.map_err(in_cell(cell))?;
        drop_database(&mut admin, cell, &name).await?;
        store::warm::forget(&mut conn, &cell.name, &name).await?;
    }
    while store::warm::count(&mut conn, &cell.name).await? < i64::from(control.config().warm_databases) {
        if control.engine().stopped().is_cancelled() {
            return Ok(());
        }
        let name = format!("w{}", &uuid::Uuid::new_v4().simple().to_string()[..16]);
        store::warm::announce(&mut conn, &cell.name, &name).await?;
        make(control, cell, &name).await?;
        store::warm::ready(&mut conn, &cell.name, &name, version).await?;
    }
    turn.commit().await?;
    Ok(())
}

async fn make(control: &Control, cell: &Cell, name: &str) -> Result<(), Error> {
    let making = control.cells().making(&cell.name);
    let _alone = making.lock().await;
    let pool = control.cells().pool(cell, MAINTENANCE)?;
    let mut admin = pool.acquire().await.map_err(in_cell(cell))?;
    insula_kit::clone_database(&mut admin, name, TEMPLATE_DATABASE).await.map_err(kit_in(cell))?;
    // The first session of a database builds what later ones read from a file (pg_internal.init): better now than at its claim.
    let mut first = control.cells().connect(cell, name).await?;
    insula_kit::fence(&mut first).await.map_err(kit_in(cell))?;
    first.close().await.map_err(in_cell(cell))
}
