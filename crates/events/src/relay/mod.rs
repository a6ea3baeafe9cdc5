//! The relay: sends what was published to the bus, from every database that this process has keys for.
//!
//! For: the way from the outboxes to a [`Sink`]. Not for: what a bus is, or keeping the outboxes tidy (`insula.sweep_queue()`, which workers call).
//! Always: at least once; those of one tenant in their order, one after the other; an event is deleted when the bus has said that it has it, and
//! waits as long as that takes; of the relays that may serve a database one is at work.

mod database;
mod link;
mod tenants;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use insula_catalog::{Catalog, FENCE_UNKNOWN};
use insula_core::placement::{POOL_DATABASE, SCHEMAS_DATABASE};
use insula_core::{CellName, KeyRing};
use metrics::gauge;
use tokio::sync::{Semaphore, watch};

use crate::sink::Sink;
use database::Desk;
use tenants::Tenants;

/// A database with an outbox in it: the cell, and the database in the cell's server.
pub(crate) type Place = (CellName, Arc<str>);

/// What a relay may use.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// How often an outbox that was empty is looked at.
    pub poll: Duration,
    /// How often databases of single tenants are visited.
    pub visit: Duration,
    /// Most events of one round.
    pub batch: i32,
    /// Which databases; `None`: all shared ones of the cells that there are keys for, and those of single tenants there.
    pub databases: Option<Vec<(CellName, Arc<str>)>>,
    /// Certificate authorities that cells' servers may have beside those of the web: a PEM file.
    pub authorities: Option<PathBuf>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { poll: Duration::from_millis(250), visit: Duration::from_secs(2), batch: 500, databases: None, authorities: None }
    }
}

/// What the desks share.
pub(crate) struct Shared {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) catalog: Catalog,
    pub(crate) keys: Box<dyn Fn() -> KeyRing + Send + Sync>,
    pub(crate) config: RelayConfig,
    pub(crate) tenants: Tenants,
    figures: Mutex<HashMap<Place, Figures>>,
}

/// A relay at work. Dropped, it stops at once: what was not known to be sent is sent again by the next.
pub struct Relay {
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl Relay {
    /// Starts; `keys` gives those that this process has now. A bus or a database that is away is tried again and again.
    pub fn start(
        sink: Arc<dyn Sink>,
        catalog: Catalog,
        keys: impl Fn() -> KeyRing + Send + Sync + 'static,
        config: RelayConfig,
    ) -> Self {
        let tenants = Tenants::new(catalog.clone());
        let shared = Arc::new(Shared { sink, catalog, keys: Box::new(keys), config, tenants, figures: Mutex::default() });
        let (stop, stopping) = watch::channel(false);
        Self { stop, serving: tokio::spawn(serve(shared, stopping)) }
    }

    /// Ends when what is under way has been said.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Serves each database there is, those that come, and no longer those that go, until told to stop.
async fn serve(shared: Arc<Shared>, stopping: watch::Receiver<bool>) {
    let mut known: HashMap<Place, tokio::task::AbortHandle> = HashMap::new();
    // Dropped with this future, they end.
    let mut desks = tokio::task::JoinSet::new();
    let visitors = Arc::new(Semaphore::new(8));
    let mut stop = stopping.clone();
    let mut changed = shared.catalog.changed();
    while !*stop.borrow() {
        let wanted = places(&shared);
        known.retain(|place, desk| {
            let stays = wanted.contains_key(place);
            if !stays {
                desk.abort();
                shared.forget(place);
            }
            stays
        });
        for (place, resident) in wanted {
            known.entry(place).or_insert_with_key(|place| {
                let visitors = (!resident).then(|| visitors.clone());
                desks.spawn(Desk::new(place.clone(), shared.clone()).serve(visitors, stopping.clone()))
            });
        }
        while desks.try_join_next().is_some() {}
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            more = changed.changed() => if more.is_err() { break },
            // Keys come without a change of the catalog.
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
    let _ = stop.wait_for(|stop| *stop).await;
    while desks.join_next().await.is_some() {}
}

/// The databases to serve; `true` for those that keep a connection: shared ones, and that of a tenant in a cell of its own.
fn places(shared: &Shared) -> BTreeMap<Place, bool> {
    if let Some(named) = &shared.config.databases {
        return named.iter().cloned().map(|place| (place, true)).collect();
    }
    let (catalog, keys) = (&shared.catalog, (shared.keys)());
    let mut found = BTreeMap::new();
    let mut shared_cells = BTreeSet::new();
    for cell in catalog.cells().keys().filter(|cell| keys.cell(cell).is_ok()) {
        for database in [POOL_DATABASE, SCHEMAS_DATABASE] {
            // A cell of one tenant has none, and one that is being prepared has none yet.
            if catalog.database_fence(cell, database) != FENCE_UNKNOWN {
                found.insert((cell.clone(), Arc::from(database)), true);
                shared_cells.insert(cell.clone());
            }
        }
    }
    catalog.look(|view| {
        for route in view.routes().filter(|route| keys.cell(&route.placement.cell).is_ok()) {
            let place = (route.placement.cell.clone(), route.placement.database.clone());
            found.entry(place).or_insert_with_key(|(cell, _)| !shared_cells.contains(cell));
        }
    });
    found
}

/// How an outbox stands.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) waiting: i64,
    pub(crate) oldest_ms: i64,
    pub(crate) refused: i64,
}

impl Shared {
    fn forget(&self, place: &Place) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
    }

    /// Shows how an outbox stands, together with the others of its cell.
    pub(crate) fn show(&self, place: &Place, figures: Figures) {
        let mut known = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(place.clone(), figures);
        let ours = known.iter().filter(|((cell, _), _)| *cell == place.0).map(|(_, figures)| *figures);
        let all = ours.fold(Figures::default(), |all, one| Figures {
            waiting: all.waiting + one.waiting,
            oldest_ms: all.oldest_ms.max(one.oldest_ms),
            refused: all.refused + one.refused,
        });
        drop(known);
        gauge!("insula_events_waiting", "cell" => place.0.to_string()).set(all.waiting as f64);
        gauge!("insula_events_oldest_seconds", "cell" => place.0.to_string()).set(all.oldest_ms as f64 / 1_000.0);
        gauge!("insula_events_refused", "cell" => place.0.to_string()).set(all.refused as f64);
    }
}
