//! A worker: takes jobs from the queues of many databases and runs them, each inside its tenant's scope.
//!
//! For: one process's share of the work. Not for: choosing (the database does, in `insula.work()`).
//! Always: what talks to queues runs on a thread of its own, so that no job, however it blocks, keeps a lease from being renewed; a job is
//! started only while its lease is known to be held, and stopped when it may not be; what was taken and not started goes back.

mod bench;
mod board;
mod clerk;
mod desk;
mod hand;
mod keys;
mod lanes;
mod link;
mod pulse;
mod runner;
mod state;
mod tenants;
mod visits;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use insula_catalog::{Catalog, FENCE_UNKNOWN};
use insula_core::placement::{POOL_DATABASE, SCHEMAS_DATABASE};
use insula_core::{CellName, KeyRing, TenantNo};
use insula_data::Data;
use uuid::Uuid;

use crate::error::Error;
use crate::registry::Jobs;
use bench::Bench;
use board::Board;
use desk::Desk;
pub use keys::Keys;
pub(crate) use link::Link;
use pulse::Pulse;
pub(crate) use state::Stop;
use tenants::Tenants;
use visits::Visits;

/// A database with a queue in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatabaseName {
    /// The cell.
    pub cell: CellName,
    /// The database in the cell's server.
    pub database: Arc<str>,
}

/// What a worker may use.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// What it calls itself; two may have one name.
    pub name: String,
    /// Jobs at work at once.
    pub concurrency: usize,
    /// How far ahead of its places it takes jobs, as time that they will take. A newcomer stands beside them, not behind. None when jobs are slow.
    pub ahead: Duration,
    /// Most jobs that it takes ahead.
    pub ahead_most: usize,
    /// How long after its last sign of life its jobs are given to others.
    pub lease: Duration,
    /// How often it looks by itself; a notification mostly comes first.
    pub poll: Duration,
    /// How soon the database of a single tenant is looked at again when nobody rang; while there is nothing, less and less often.
    pub visit: Duration,
    /// How long jobs at work may take once it is asked to stop.
    pub drain: Duration,
    /// Which databases; `None`: all shared ones of the cells that it has keys for, and those of single tenants there.
    pub databases: Option<Vec<DatabaseName>>,
    /// Where schedules of the host lie; `None`: the pool of the first cell by name that the catalog knows. A worker that does not serve that
    /// database runs none.
    pub anchor: Option<DatabaseName>,
    /// Certificate authorities that cells' servers may have beside those of the web: a PEM file.
    pub authorities: Option<PathBuf>,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            name: "worker".to_owned(),
            concurrency: 20,
            ahead: Duration::from_millis(40),
            ahead_most: 1_000,
            lease: Duration::from_secs(15),
            poll: Duration::from_millis(250),
            visit: Duration::from_secs(2),
            drain: Duration::from_secs(25),
            databases: None,
            anchor: None,
            authorities: None,
        }
    }
}

/// What desks and runners share.
pub(crate) struct Shared {
    pub(crate) jobs: Jobs,
    pub(crate) data: Data,
    pub(crate) catalog: Catalog,
    pub(crate) keys: Keys,
    pub(crate) config: WorkerConfig,
    pub(crate) bench: Bench,
    pub(crate) pulse: Pulse,
    pub(crate) board: Board,
    pub(crate) tenants: Tenants,
    pub(crate) visits: Visits,
    /// The application's, where jobs run.
    pub(crate) runtime: tokio::runtime::Handle,
}

/// Where a job says how far it is.
pub(crate) trait Reports: Send + Sync {
    /// The last word on one attempt.
    fn progress(&self, tenant: TenantNo, id: Uuid, attempt: i32, progress: serde_json::Value);
}

/// A worker at work. Dropped, it stops at once, and what it had runs elsewhere once its lease is over; [`Worker::stop`] is the good way.
pub struct Worker {
    shared: Arc<Shared>,
    stop: tokio::sync::watch::Sender<bool>,
    killed: tokio::sync::watch::Sender<bool>,
    ended: tokio::sync::oneshot::Receiver<()>,
    runners: tokio::task::JoinSet<()>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts. Jobs run on the runtime that this is called in; queues are served by a thread beside it.
    ///
    /// # Errors
    /// [`Error::Thread`]. A database that is away is tried again and again.
    pub fn start(jobs: Jobs, data: Data, catalog: Catalog, keys: impl Into<Keys>, config: WorkerConfig) -> Result<Self, Error> {
        let keys = keys.into();
        let bench = Bench::default();
        let tenants = Tenants::new(catalog.clone());
        let (pulse, board, visits) = (Pulse::new(config.concurrency), Board::default(), Visits::new(config.concurrency));
        metrics::gauge!("insula_jobs_places").set(pulse.places() as f64);
        let runtime = tokio::runtime::Handle::current();
        let shared = Arc::new(Shared { jobs, data, catalog, keys, config, bench, pulse, board, tenants, visits, runtime });
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let (killed, mut killing) = tokio::sync::watch::channel(false);
        let (ending, ended) = tokio::sync::oneshot::channel();
        let served = shared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        std::thread::Builder::new()
            .name("insula-jobs".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(served, stopping) => {}
                        Ok(_) = killing.wait_for(|killed| *killed) => {}
                    }
                });
                let _ = ending.send(());
            })
            .map_err(Error::Thread)?;
        let mut runners = tokio::task::JoinSet::new();
        for place in 0..shared.pulse.places() {
            runners.spawn(runner::run(shared.clone(), place));
        }
        Ok(Self { shared, stop, killed, ended, runners })
    }

    /// Takes nothing more, gives back what was not started, waits for what runs as long as the settings say, and stops the rest, which runs
    /// again elsewhere.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.ended).await;
        self.shared.bench.close();
        self.runners.shutdown().await;
    }
}

impl Worker {
    /// Ends at once and without a word, as a killed process does: leases stay until others find out. For tests of exactly that.
    #[doc(hidden)]
    pub fn kill(mut self) {
        self.runners.abort_all();
        self.killed.send_replace(true);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.shared.bench.close();
    }
}

/// Serves each database there is, those that come, and no longer those that go, until told to stop.
async fn serve(shared: Arc<Shared>, mut stop: tokio::sync::watch::Receiver<bool>) {
    let mut desks: BTreeMap<DatabaseName, tokio::sync::watch::Sender<bool>> = BTreeMap::new();
    let mut at_work = tokio::task::JoinSet::new();
    let mut changed = shared.catalog.changed();
    let mut keys = shared.keys.clone();
    while !*stop.borrow() {
        let found = databases(&shared.catalog, &shared.keys.now(), shared.config.databases.as_deref());
        desks.retain(|name, leave| {
            let stays = found.contains_key(name);
            leave.send_replace(!stays);
            if !stays {
                shared.board.forget(name);
                shared.visits.desks().remove(name);
            }
            stays
        });
        for (name, resident) in found {
            desks.entry(name).or_insert_with_key(|name| {
                let (leave, leaving) = tokio::sync::watch::channel(false);
                let desk = Arc::new(Desk::new(name.clone(), !resident, shared.clone()));
                if !resident {
                    shared.visits.desks().insert(name.clone(), Arc::downgrade(&desk));
                }
                at_work.spawn(desk.serve(leaving));
                leave
            });
        }
        while at_work.try_join_next().is_some() {}
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            more = changed.changed() => if more.is_err() { break },
            () = keys.changed() => {}
        }
    }
    let _ = stop.wait_for(|stop| *stop).await;
    for leave in desks.values() {
        leave.send_replace(true);
    }
    while at_work.join_next().await.is_some() {}
}

impl Shared {
    /// Where schedules of the host lie.
    pub(crate) fn anchor(&self) -> Option<DatabaseName> {
        let has_pool = |cell: &&CellName| self.catalog.database_fence(cell, POOL_DATABASE) != FENCE_UNKNOWN;
        let first = || self.catalog.cells().keys().find(has_pool).cloned();
        let pool = |cell| DatabaseName { cell, database: POOL_DATABASE.into() };
        self.config.anchor.clone().or_else(|| first().map(pool))
    }
}

/// The databases to serve; `true` for those that many tenants share, or that are alone in their cell: there it stays.
pub(crate) fn databases(catalog: &Catalog, keys: &KeyRing, named: Option<&[DatabaseName]>) -> BTreeMap<DatabaseName, bool> {
    if let Some(named) = named {
        return named.iter().cloned().map(|name| (name, true)).collect();
    }
    let ours: std::collections::BTreeSet<CellName> = keys.cells().cloned().collect();
    let mut found = BTreeMap::new();
    let mut shared_cells = std::collections::BTreeSet::new();
    for cell in catalog.cells().keys().filter(|cell| ours.contains(*cell)) {
        for database in [POOL_DATABASE, SCHEMAS_DATABASE] {
            // A cell of one tenant has none, and one that is being prepared has none yet.
            if catalog.database_fence(cell, database) != FENCE_UNKNOWN {
                found.insert(DatabaseName { cell: cell.clone(), database: database.into() }, true);
                shared_cells.insert(cell.clone());
            }
        }
    }
    catalog.look(|view| {
        for route in view.routes().filter(|route| ours.contains(&route.placement.cell)) {
            let placement = &route.placement;
            let name = DatabaseName { cell: placement.cell.clone(), database: placement.database.clone() };
            // In a cell of its own a tenant has the worker to itself.
            found.entry(name).or_insert_with_key(|name| !shared_cells.contains(&name.cell));
        }
    });
    found
}
