//! Brings the SQL kit of tenants' own databases up to date: an upgrade of the control plane brings a new one.
//!
//! Shared databases and templates are brought up to date when their cell is prepared, before the control plane says that it is ready; these
//! come after, several at a time, because there may be thousands. Always: each is looked at once by a process; one that cannot be reached is looked at
//! again.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt as _};
use insula_core::CellName;
use sqlx::Connection as _;

use crate::cells::{in_cell, kit_in};
use crate::error::Error;
use crate::handle::Control;
use crate::store;

/// Databases at once.
const AT_ONCE: usize = 8;

/// Looks again and again, for as long as it is polled.
pub(crate) async fn run(control: Control) {
    let mut known = BTreeSet::new();
    loop {
        if control.is_ready()
            && let Err(error) = round(&control, &mut known).await
        {
            tracing::warn!(%error, "tenants' databases were not looked at for their kit; looking again");
        }
        tokio::time::sleep(control.config().reconcile_every).await;
    }
}

async fn round(control: &Control, known: &mut BTreeSet<(String, String)>) -> Result<(), Error> {
    let places = store::cells::tenant_databases(&mut *control.catalog_pool().acquire().await?).await?;
    let new: Vec<_> = places.into_iter().filter(|place| !known.contains(place)).collect();
    let work = stream::iter(new).map(|(cell, database)| async move {
        let outcome = upgrade(control, &cell, &database).await;
        (cell, database, outcome)
    });
    let outcomes: Vec<_> = work.buffer_unordered(AT_ONCE).collect().await;
    for (cell, database, outcome) in outcomes {
        match outcome {
            Ok(upgraded) => {
                if upgraded {
                    tracing::info!(%cell, %database, "brought the SQL kit up to date");
                }
                known.insert((cell, database));
            }
            Err(error) => tracing::warn!(%cell, %database, %error, "cannot bring the SQL kit up to date; trying again"),
        }
    }
    Ok(())
}

/// Whether there was something to do.
async fn upgrade(control: &Control, cell: &str, database: &str) -> Result<bool, Error> {
    let name: CellName = store::plans::parse("cell name", cell.parse())?;
    let mut catalog = control.catalog_pool().acquire().await?;
    let kid = store::cells::grant_kid(&mut catalog, &name, database).await?;
    drop(catalog);
    let cell = control.cell(&name).await?;
    let mut conn = control.cells().connect(&cell, database).await?;
    let current = insula_kit::is_current(&mut conn).await.map_err(kit_in(&cell))?;
    if !current {
        insula_kit::install(&mut conn, database, &control.cells().key(&name), kid).await.map_err(kit_in(&cell))?;
    }
    conn.close().await.map_err(in_cell(&cell))?;
    Ok(!current)
}
