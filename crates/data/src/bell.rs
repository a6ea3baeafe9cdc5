//! Tells workers that something came to a database in which none of them stays: in the cell's pool database, where they listen for all of its kind.
//!
//! For: databases of one tenant, so that idle ones need no connection. Not for: certainty. A ring may be lost with this process or with a connection, and
//! workers look by themselves now and then.
//! Always: what rings while a ring is on its way goes with the next one, once; so a busy process rings no more often than a round trip takes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use insula_core::CellName;
use tokio::sync::Notify;

use crate::conn::Conn;
use crate::error::Error;
use crate::pools::Pools;

/// For how long a connection is kept that nobody rings on.
const IDLE: Duration = Duration::from_secs(30);

/// The bells of the cells that something was rung in.
#[derive(Default)]
pub(crate) struct Bells(Mutex<HashMap<CellName, Arc<Cord>>>);

/// Databases that are to be rung for.
#[derive(Default)]
struct Cord {
    waiting: Mutex<BTreeSet<Arc<str>>>,
    pulled: Notify,
}

impl Bells {
    /// Rings for a database of a cell, soon.
    pub(crate) fn ring(&self, pools: &Arc<Pools>, cell: &CellName, database: &Arc<str>) {
        let cord = {
            let mut cords = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                let cord = Arc::new(Cord::default());
                tokio::spawn(ringer(Arc::downgrade(pools), cell.clone(), Arc::clone(&cord)));
                cord
            };
            Arc::clone(cords.entry(cell.clone()).or_insert_with(new))
        };
        cord.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(database));
        cord.pulled.notify_one();
    }
}

/// Rings for one cell, until the pools are gone.
async fn ringer(pools: Weak<Pools>, cell: CellName, cord: Arc<Cord>) {
    let mut conn = None;
    loop {
        let pulled = tokio::time::timeout(IDLE, cord.pulled.notified()).await.is_ok();
        let Some(pools) = pools.upgrade() else { return };
        let waiting = std::mem::take(&mut *cord.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !pulled || waiting.is_empty() {
            conn = None;
            continue;
        }
        if let Err(error) = ring(&pools, &cell, &mut conn, waiting).await {
            conn = None;
            metrics::counter!("insula_data_bells_lost_total").increment(1);
            tracing::debug!(%error, %cell, "a bell could not be rung: workers look by themselves");
        }
    }
}

async fn ring(pools: &Pools, cell: &CellName, conn: &mut Option<Conn>, waiting: BTreeSet<Arc<str>>) -> Result<(), Error> {
    let conn = match conn {
        Some(conn) => conn,
        None => conn.insert(pools.unbound(cell).await?),
    };
    let databases: Vec<&str> = waiting.iter().map(|database| &**database).collect();
    sqlx::query("SELECT insula.ring(d) FROM pg_catalog.unnest($1::text[]) d").bind(databases).execute(&mut conn.pg).await?;
    Ok(())
}
