//! The control plane as a value: cheap to clone, what REST and tests call.
//!
//! For: one method for each thing that people may ask for; each checks its input, acts in one catalog transaction with its
//! audit line, and leaves long work to an operation. Not for: who may ask (REST's authentication decides that).

mod access;
pub(crate) mod certificates;
mod documents;
mod domains;
mod edge;
mod host_schedules;
mod identity;
mod jobs;
mod onlookers;
mod records;
mod registry;
mod tenants;
mod usage;
mod workers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_core::KeyRing;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::onlookers::Onlookers;
use crate::cells::Cells;
use crate::config::Config;
use crate::dns::Dns;
use crate::error::Error;
use crate::operation::engine::Engine;
use crate::store::bundle::Stored;
use crate::watch::Hub;

/// The control plane of one catalog.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    config: Config,
    catalog: PgPool,
    /// Does not wait for the disk: leases and progress only.
    soft: PgPool,
    cells: Cells,
    engine: Engine,
    /// Password hashes at once: each takes a core and 19 MiB.
    hashing: Arc<Semaphore>,
    /// Wakes the reconcilers.
    reconcile: Notify,
    ready: watch::Sender<bool>,
    /// As it was read a moment ago.
    bundle: tokio::sync::Mutex<Option<(Instant, Stored)>>,
    /// Wakes the sender of webhooks.
    events: Notify,
    /// The process is to end: what only waits for news ends too.
    closing: CancellationToken,
    /// Streams of news that may yet be opened: each looks into the catalog several times a second.
    watchers: Arc<Semaphore>,
    /// For proofs of host names.
    dns: Dns,
    /// The change feed, for data planes.
    hub: Hub,
    /// Who looked at tenants' jobs lately.
    onlookers: Onlookers,
}

/// Most streams of news at once.
const WATCHERS: usize = 200;

/// How long a bundle that was read is taken for the present one. A tenant made from an older one is brought up to date.
const BUNDLE_AGE: Duration = Duration::from_secs(1);

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control({})", self.0.config.name)
    }
}

impl Control {
    /// Connects to the catalog and brings its schema up to date. Does no work until [`Control::start`].
    ///
    /// # Errors
    /// When the URL cannot be read or the catalog does not answer.
    pub async fn open(config: Config) -> Result<Self, Error> {
        // The parser's message could quote the password.
        let options: PgConnectOptions = config
            .catalog_url
            .parse()
            .map_err(|_| Error::invalid("catalog_url", "a URL like postgres://role:password@host:5432/insula_catalog"))?;
        if let Some(authorities) = &config.cell_authorities {
            insula_catalog::tls::check_authorities(authorities).map_err(|why| Error::invalid("cell_authorities", why))?;
        }
        let options = options.application_name("insula-control");
        let soft = options.clone().options([("synchronous_commit", "off")]);
        let workers = u32::try_from(config.workers).unwrap_or(u32::MAX);
        let pool = |most: u32| PgPoolOptions::new().max_connections(most).acquire_timeout(Duration::from_secs(10));
        let catalog = pool(workers.saturating_add(16)).connect_with(options).await?;
        let reader = config.root_key.catalog_password(insula_core::placement::READER_ROLE);
        insula_catalog::schema::migrate(&catalog, Some(&reader)).await.map_err(Error::Schema)?;
        let soft = pool(4).connect_lazy_with(soft);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self(Arc::new(Inner {
            dns: Dns::new(config.dns)?,
            hub: Hub::new(&config.catalog_url)?,
            cells: Cells::new(config.root_key.clone(), config.cell_secrets.clone(), config.cell_authorities.clone()),
            engine: Engine::new(config.workers),
            config,
            catalog,
            soft,
            hashing: Arc::new(Semaphore::new(cores)),
            reconcile: Notify::new(),
            ready: watch::Sender::new(false),
            bundle: tokio::sync::Mutex::new(None),
            events: Notify::new(),
            closing: CancellationToken::new(),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            onlookers: Onlookers::default(),
        })))
    }

    /// What it was told.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn dns(&self) -> &Dns {
        &self.0.dns
    }

    /// Whether everything that is to be prepared at start is.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// The catalog's pool: for REST's own tables (idempotent responses, keys).
    #[must_use]
    pub fn catalog_pool(&self) -> &PgPool {
        &self.0.catalog
    }

    /// The keys of these cells, for a data plane that serves them.
    #[must_use]
    pub fn key_ring<'a>(&self, cells: impl IntoIterator<Item = &'a insula_core::CellName>) -> KeyRing {
        KeyRing::new(cells.into_iter().map(|cell| (cell.clone(), self.0.config.root_key.cell(cell))))
    }

    /// Resolves when the engine begins nothing more: it was stopped, or has crashed on purpose ([`crate::fault`]).
    pub async fn crashed(&self) {
        self.engine().stopped().cancelled().await;
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    pub(crate) fn soft_pool(&self) -> &PgPool {
        &self.0.soft
    }

    pub(crate) fn onlookers(&self) -> &Onlookers {
        &self.0.onlookers
    }

    pub(crate) fn cells(&self) -> &Cells {
        &self.0.cells
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn hashing(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.hashing)
    }

    /// The application's bundle.
    pub(crate) async fn bundle(&self) -> Result<Stored, Error> {
        let mut cached = self.0.bundle.lock().await;
        if let Some((read, bundle)) = &*cached
            && read.elapsed() < BUNDLE_AGE
        {
            return Ok(bundle.clone());
        }
        let bundle = crate::store::bundle::read(&mut *self.catalog_pool().acquire().await?).await?;
        *cached = Some((Instant::now(), bundle.clone()));
        Ok(bundle)
    }

    /// The bundle has changed.
    pub(crate) async fn forget_bundle(&self) {
        *self.0.bundle.lock().await = None;
    }

    /// Resolves once everything that is to be prepared at start is.
    pub(crate) async fn ready_signal(&self) {
        // The sender lives as long as we do.
        let _ = self.0.ready.subscribe().wait_for(|ready| *ready).await;
    }

    pub(crate) fn set_ready(&self) {
        self.0.ready.send_replace(true);
    }

    pub(crate) fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }

    pub(crate) fn watchers(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.watchers)
    }

    /// An operation has ended: reconcilers may have something to do.
    pub(crate) fn ended(&self) {
        self.0.reconcile.notify_waiters();
        self.0.events.notify_one();
    }

    /// Resolves when there may be events to deliver.
    pub(crate) async fn events_signal(&self) {
        self.0.events.notified().await;
    }

    /// Resolves when the reconcilers are to look for themselves.
    pub(crate) async fn reconcile_signal(&self) {
        self.0.reconcile.notified().await;
    }
}
