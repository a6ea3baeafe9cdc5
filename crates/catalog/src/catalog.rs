//! The handle through which a process knows the catalog.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use insula_core::{CellName, Kind, TenantId};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::Error;
use crate::document::{Document, DocumentVersion};
use crate::follower::Follower;
use crate::route::{Route, RouteRef};
use crate::row::{Cell, DatabaseId};
use crate::snapshot::{Current, FENCE_UNKNOWN, Snapshot, View};
use crate::source::Source;
use crate::writer::Writer;

/// How a catalog is followed.
#[derive(Clone, Debug)]
pub struct Options {
    /// `SLUG.<base_domain>` leads to the tenant of that slug. Lower case, without port.
    pub base_domain: String,
    /// How often to ask for changes when no push comes.
    pub poll: Duration,
    /// Past this age, knowledge is [`Freshness::Stale`]: warn.
    pub soft: Duration,
    /// Past this age, knowledge is [`Freshness::Expired`]: refuse what is safety critical.
    pub hard: Duration,
    /// A file that holds what is known, to start from when the source is away. Its folder must be there.
    pub disk: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            base_domain: "localhost".into(),
            poll: Duration::from_secs(1),
            soft: Duration::from_secs(10),
            hard: Duration::from_secs(300),
            disk: None,
        }
    }
}

/// How far the snapshot's age is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Younger than the soft bound.
    Fresh,
    /// Between the bounds: serve, and warn.
    Stale,
    /// Past the hard bound, or never loaded: fail closed for what is safety critical, serve for the rest.
    Expired,
}

/// The catalog as this process knows it, followed in the background. Clones share it; the following stops when the last is gone.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
    /// Dropped with the last handle, which the follower sees.
    _alive: Arc<watch::Sender<()>>,
}

/// What handles and the follower share.
pub(crate) struct Shared {
    current: Arc<Current>,
    soft: Duration,
    hard: Duration,
    epoch: Instant,
    /// Milliseconds from `epoch` to the last contact, negative when an earlier process had it; [`NEVER`] before the first.
    contact: AtomicI64,
    revision: watch::Sender<i64>,
    identity: Mutex<Option<Uuid>>,
    /// Refreshes asked for so far, and the last pass that answered some.
    pub(crate) asked: AtomicU64,
    ask: Notify,
    answered: watch::Sender<(u64, Result<(), Arc<Error>>)>,
}

/// No contact yet.
const NEVER: i64 = i64::MIN;

impl Shared {
    /// The source was heard; of a revision that is known already, only that. What was loaded `anew` is news at any revision: it may be another catalog's.
    pub(crate) fn reached(&self, revision: i64, anew: bool) {
        self.contacted();
        self.revision.send_if_modified(|known| std::mem::replace(known, revision) != revision || anew);
    }

    pub(crate) fn contacted(&self) {
        self.contact.store(self.elapsed(), Ordering::Release);
    }

    /// An earlier process knew a revision to be the present so long ago.
    pub(crate) fn restored(&self, revision: i64, age: Duration) {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.contact.store(self.elapsed().saturating_sub(age).max(NEVER + 1), Ordering::Release);
        self.revision.send_replace(revision);
    }

    /// Which catalog it is; `None` says nothing.
    pub(crate) fn identify(&self, identity: Option<Uuid>) {
        if identity.is_some() {
            *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
        }
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    pub(crate) fn age(&self) -> Duration {
        let contact = match self.contact.load(Ordering::Acquire) {
            NEVER => 0,
            contact => contact,
        };
        Duration::from_millis(u64::try_from(self.elapsed().saturating_sub(contact)).unwrap_or(0))
    }

    pub(crate) fn freshness(&self) -> Freshness {
        let age = self.age();
        if *self.revision.borrow() < 0 || age > self.hard {
            Freshness::Expired
        } else if age > self.soft {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }

    pub(crate) fn answer(&self, asked: u64, result: Result<(), Arc<Error>>) {
        drop(self.answered.send_replace((asked, result)));
    }

    /// Resolves when somebody has asked after `answered`.
    pub(crate) async fn refresh_asked(&self, answered: u64) {
        loop {
            let ask = self.ask.notified();
            if self.asked.load(Ordering::Acquire) > answered {
                return;
            }
            ask.await;
        }
    }
}

impl Catalog {
    /// Follows a source on the current tokio runtime. Empty until [`Catalog::ready`].
    #[must_use]
    pub fn start(source: impl Source, options: Options) -> Self {
        let base = options.base_domain.trim_matches('.').to_ascii_lowercase();
        let snapshot = Snapshot::new(&base);
        let current = Arc::new(Current::new(snapshot.clone()));
        let writer = Writer::new(Arc::clone(&current), snapshot);
        let shared = Arc::new(Shared {
            current,
            soft: options.soft,
            hard: options.hard,
            epoch: Instant::now(),
            contact: AtomicI64::new(NEVER),
            revision: watch::channel(-1).0,
            identity: Mutex::new(None),
            asked: AtomicU64::new(0),
            ask: Notify::new(),
            answered: watch::channel((0, Ok(()))).0,
        });
        let (alive, stop) = watch::channel(());
        tokio::spawn(Follower::new(source, Arc::clone(&shared), writer, &options).run(stop));
        Self { shared, _alive: Arc::new(alive) }
    }

    /// Resolves when the catalog has been loaded once. Waits through outages: put a timeout around it where a start must fail.
    pub async fn ready(&self) {
        let mut revision = self.shared.revision.subscribe();
        // The sender lives in `self`.
        revision.wait_for(|rev| *rev >= 0).await.ok();
    }

    /// Whether the catalog has been loaded once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.revision() >= 0
    }

    /// Calls `f` with the whole catalog at one revision. The fastest way to read: no lock, no allocation, no shared counter, just
    /// one look at a version number; so it is for what is decided at once (it cannot wait inside).
    #[inline]
    pub fn look<R>(&self, f: impl FnOnce(View<'_>) -> R) -> R {
        self.shared.current.look(f)
    }

    /// The tenant of a `Host` header or an authority: `SLUG.<base domain>` or a verified custom domain, in any case, with or
    /// without a port or a trailing dot.
    #[must_use]
    #[inline]
    pub fn by_host(&self, host: &str) -> Option<RouteRef> {
        self.look(|view| view.by_host(host).cloned().map(RouteRef))
    }

    /// The tenant of a slug.
    #[must_use]
    #[inline]
    pub fn by_slug(&self, slug: &str) -> Option<RouteRef> {
        self.look(|view| view.by_slug(slug).cloned().map(RouteRef))
    }

    /// The tenant of an id.
    #[must_use]
    #[inline]
    pub fn by_id(&self, id: TenantId) -> Option<RouteRef> {
        self.look(|view| view.by_id(id).cloned().map(RouteRef))
    }

    /// A cell.
    #[must_use]
    pub fn cell(&self, name: &CellName) -> Option<Arc<Cell>> {
        self.look(|view| view.cell(name).cloned())
    }

    /// A configuration document; [`crate::Document::of`] says which version a tenant has.
    #[must_use]
    pub fn document(&self, name: &str) -> Option<Arc<Document>> {
        self.look(|view| view.document(name).cloned())
    }

    /// What a configuration document says to a tenant; `None` when there is none of that name, or nothing in force.
    #[must_use]
    pub fn config(&self, name: &str, tenant: TenantId) -> Option<DocumentVersion> {
        self.look(|view| view.document(name)?.of(tenant).cloned())
    }

    /// All cells.
    #[must_use]
    pub fn cells(&self) -> Arc<BTreeMap<CellName, Arc<Cell>>> {
        self.look(|view| Arc::clone(&view.snapshot.cells))
    }

    /// The fence to put in a grant for `route`: right whenever the route was read. [`FENCE_UNKNOWN`] when the tenant no longer
    /// stands as the route says; the database then looks for itself, and refuses if the route is outdated.
    #[must_use]
    pub fn fence_of(&self, route: &Route) -> i64 {
        self.look(|view| view.fence_of(route))
    }

    /// A database's fence, [`FENCE_UNKNOWN`] when it is not known. Not for grants: a fence that is read *after* a route may be
    /// newer than the route, and would make an outdated grant look current. [`Catalog::fence_of`] cannot go wrong.
    #[must_use]
    pub fn database_fence(&self, cell: &CellName, database: &str) -> i64 {
        let id = DatabaseId { cell: cell.clone(), name: database.into() };
        self.look(|view| view.snapshot.database(&id).map_or(FENCE_UNKNOWN, |known| known.fence.load(Ordering::Acquire)))
    }

    /// Time since the last successful contact with the source, an earlier process's when this one started from its disk; since the start
    /// when there was none.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.shared.age()
    }

    /// [`Catalog::age`] against the bounds.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.shared.freshness()
    }

    /// The revision that the snapshot shows; -1 before the first load.
    #[must_use]
    pub fn revision(&self) -> i64 {
        *self.shared.revision.borrow()
    }

    /// Which catalog this is, which is to say: which installation. Numbers of tenants are another's in another one. `None` until it was heard.
    /// Takes a lock: not for what happens with each request.
    #[must_use]
    pub fn identity(&self) -> Option<Uuid> {
        *self.shared.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value that is marked changed with every new revision, and holds it.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<i64> {
        self.shared.revision.subscribe()
    }

    /// Catches up with everything committed before this call. However many ask at once, the source is asked once.
    ///
    /// # Errors
    /// When the source does not answer; the snapshot stays as it is.
    pub async fn refresh(&self) -> Result<(), RefreshError> {
        let mut answered = self.shared.answered.subscribe();
        let mine = self.shared.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.shared.ask.notify_one();
        match answered.wait_for(|(asked, _)| *asked >= mine).await {
            Ok(answer) => answer.1.clone().map_err(RefreshError),
            Err(_) => Err(RefreshError(Arc::new(Error::Stopped))),
        }
    }
}

/// Why a refresh failed; shared by all who asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct RefreshError(Arc<Error>);

impl RefreshError {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind()
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("revision", &self.revision()).field("age", &self.age()).finish_non_exhaustive()
    }
}
