//! The catalog as one process knows it: what readers see.
//!
//! Always: a snapshot is the catalog at one revision and never changes, but for the fences in it. Readers take no lock, allocate
//! nothing and wait for nobody. **A fence is published after every placement that was committed with it or before it**: whoever
//! takes a fence *first* and then finds a placement still in force holds a pair that the database will judge rightly;
//! [`View::fence_of`] does so. The other way round (a placement first, then a fence that has moved on meanwhile) would present an
//! outdated epoch under a current fence, which the database takes as "nothing has changed since".

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use insula_core::{CellName, KeyId, ProviderId, TenantId};

use crate::document::Document;
use crate::host;
use crate::identity::{ApiKey, Issuer, Provider};
use crate::route::{Database, Route};
use crate::row::{Cell, DatabaseId};
use crate::table::{Hash, Table};

/// A fence that no database has: with it the database looks at its own tables, which is always right.
pub const FENCE_UNKNOWN: i64 = -1;

/// 4096 shards: about 250 routes in each at a million tenants.
const ROUTE_BITS: u32 = 6;
const SMALL_BITS: u32 = 4;

/// A custom host name and whose it is.
pub(crate) struct Domain {
    pub(crate) host: Box<str>,
    pub(crate) tenant: TenantId,
}

/// One version of everything. Cloning copies some hundred pointers.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// Greater than that of every earlier one of the same catalog.
    version: u64,
    /// Names the catalog that this is of: no other has this allocation while this lives.
    catalog: Arc<Setting>,
    pub(crate) ids: Table<Route>,
    pub(crate) slugs: Table<Route>,
    pub(crate) hosts: Table<Domain>,
    pub(crate) databases: Table<Database>,
    pub(crate) cells: Arc<BTreeMap<CellName, Arc<Cell>>>,
    pub(crate) providers: Table<Provider>,
    pub(crate) issuers: Table<Issuer>,
    /// By hash of their text, and by id.
    pub(crate) keys: Table<ApiKey>,
    pub(crate) key_ids: Table<ApiKey>,
    pub(crate) documents: Arc<BTreeMap<Arc<str>, Arc<Document>>>,
}

/// What all versions share.
struct Setting {
    /// The base domain with a dot before it.
    suffix: Box<str>,
    // Seeded at random, so that nobody can choose slugs that collide.
    hasher: RandomState,
}

impl Snapshot {
    /// An empty one. Hosts of the form `SLUG.<base_domain>` lead to tenants by slug.
    pub(crate) fn new(base_domain: &str) -> Self {
        Self {
            version: 0,
            catalog: Arc::new(Setting { suffix: format!(".{base_domain}").into(), hasher: RandomState::default() }),
            ids: Table::new(ROUTE_BITS),
            // What a request needs next is found by the tenant's number.
            slugs: Table::hinting(ROUTE_BITS, |route| u32::try_from(route.no.get()).unwrap_or(0)),
            hosts: Table::new(SMALL_BITS),
            databases: Table::new(SMALL_BITS),
            cells: Arc::default(),
            providers: Table::new(SMALL_BITS),
            issuers: Table::new(SMALL_BITS),
            keys: Table::new(SMALL_BITS),
            key_ids: Table::new(SMALL_BITS),
            documents: Arc::default(),
        }
    }

    #[inline]
    pub(crate) fn hash_id(&self, id: TenantId) -> Hash {
        self.catalog.hasher.hash_one(id.uuid().as_u128())
    }

    #[inline]
    pub(crate) fn hash_text(&self, text: &str) -> Hash {
        self.catalog.hasher.hash_one(text)
    }

    pub(crate) fn hash_database(&self, id: &DatabaseId) -> Hash {
        self.catalog.hasher.hash_one((id.cell.as_str(), &*id.name))
    }

    pub(crate) fn hash_uuid(&self, id: uuid::Uuid) -> Hash {
        self.catalog.hasher.hash_one(id.as_u128())
    }

    pub(crate) fn hash_issuer(&self, issuer: &str, audience: Option<&str>) -> Hash {
        self.catalog.hasher.hash_one((issuer, audience))
    }

    pub(crate) fn hash_key(&self, hash: &[u8; 32]) -> Hash {
        self.catalog.hasher.hash_one(hash)
    }

    pub(crate) fn provider(&self, id: ProviderId) -> Option<&Arc<Provider>> {
        self.providers.find(self.hash_uuid(id.uuid()), |provider| provider.id == id)
    }

    pub(crate) fn issuer(&self, issuer: &str, audience: Option<&str>) -> Option<&Arc<Issuer>> {
        self.issuers.find(self.hash_issuer(issuer, audience), |i| &*i.issuer == issuer && i.audience.as_deref() == audience)
    }

    pub(crate) fn key(&self, hash: &[u8; 32]) -> Option<&Arc<ApiKey>> {
        self.keys.find(self.hash_key(hash), |key| key.hash == *hash)
    }

    pub(crate) fn key_by_id(&self, id: KeyId) -> Option<&Arc<ApiKey>> {
        self.key_ids.find(self.hash_uuid(id.uuid()), |key| key.id == id)
    }

    #[inline]
    pub(crate) fn by_id(&self, id: TenantId) -> Option<&Arc<Route>> {
        self.ids.find(self.hash_id(id), |route| route.id == id)
    }

    #[inline]
    pub(crate) fn by_slug(&self, slug: &str) -> Option<&Arc<Route>> {
        self.by_slug_then(slug, |_| ())
    }

    #[inline]
    fn by_slug_then(&self, slug: &str, soon: impl Fn(u32)) -> Option<&Arc<Route>> {
        self.slugs.find_then(self.hash_text(slug), soon, |route| route.slug.as_str() == slug)
    }

    #[inline]
    fn expect_host(&self, text: &str) {
        if let Some(label) = text.strip_suffix(&*self.catalog.suffix) {
            self.slugs.expect(self.hash_text(label));
        }
    }

    #[inline]
    pub(crate) fn by_host(&self, text: &str, soon: impl Fn(u32)) -> Option<&Arc<Route>> {
        // Most hosts come as they are kept; what is no slug is not found, whatever it holds.
        let plain = text.strip_suffix(&*self.catalog.suffix).and_then(|label| self.by_slug_then(label, soon));
        plain.or_else(|| self.by_odd_host(text))
    }

    #[cold]
    fn by_odd_host(&self, text: &str) -> Option<&Arc<Route>> {
        let host = host::normalise(text)?;
        match host.label_under(self.catalog.suffix.get(1..)?) {
            Some(slug) => self.by_slug(slug),
            None => {
                let host = host.as_str();
                self.by_id(self.hosts.find(self.hash_text(host), |domain| &*domain.host == host)?.tenant)
            }
        }
    }

    pub(crate) fn database(&self, id: &DatabaseId) -> Option<&Arc<Database>> {
        self.databases.find(self.hash_database(id), |database| database.id == *id)
    }
}

/// The newest snapshot, as the writer shows it.
pub(crate) struct Current {
    newest: ArcSwap<Snapshot>,
    /// The version of `newest`, or a moment behind it.
    version: AtomicU64,
    catalog: Arc<Setting>,
}

thread_local! {
    /// The snapshot that this thread read last, so that reading on costs one look at a version number and no shared counter. A
    /// thread that never reads again keeps its last one alive: what has changed since, twice.
    static LAST: RefCell<Option<Arc<Snapshot>>> = const { RefCell::new(None) };
}

impl Current {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let catalog = Arc::clone(&snapshot.catalog);
        Self { newest: ArcSwap::from_pointee(snapshot), version: AtomicU64::new(0), catalog }
    }

    /// Shows a version of the one writer's; fences that belong to it come after this.
    pub(crate) fn show(&self, working: &mut Snapshot) {
        working.version += 1;
        self.newest.store(Arc::new(working.clone()));
        self.version.store(working.version, Ordering::Release);
    }

    /// Calls `f` with the newest snapshot.
    #[inline]
    pub(crate) fn look<R>(&self, f: impl FnOnce(View<'_>) -> R) -> R {
        LAST.with(|last| {
            let version = self.version.load(Ordering::Acquire);
            if let Ok(last) = last.try_borrow()
                && let Some(snapshot) = &*last
                && snapshot.version >= version
                && Arc::ptr_eq(&snapshot.catalog, &self.catalog)
            {
                return f(View { snapshot, current: self });
            }
            let snapshot = self.newest.load_full();
            // Not while an outer look holds the old one.
            if let Ok(mut last) = last.try_borrow_mut() {
                *last = Some(Arc::clone(&snapshot));
            }
            f(View { snapshot: &snapshot, current: self })
        })
    }
}

/// The catalog at one revision, for the length of a closure ([`crate::Catalog::look`]).
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) snapshot: &'a Snapshot,
    current: &'a Current,
}

impl<'a> View<'a> {
    /// The tenant of a `Host` header or an authority.
    #[must_use]
    #[inline]
    pub fn by_host(self, host: &str) -> Option<&'a Arc<Route>> {
        self.snapshot.by_host(host, |_| ())
    }

    /// As [`View::by_host`]; before the route is read, `soon` is told the number of the tenant that it probably is (0 when it is above 32
    /// bits), so that what is kept by that number elsewhere can be fetched into the processor's cache together with the route.
    #[must_use]
    #[inline]
    pub fn by_host_then(self, host: &str, soon: impl Fn(u32)) -> Option<&'a Arc<Route>> {
        self.snapshot.by_host(host, soon)
    }

    /// Has what [`View::by_host`] looks at first fetched into the processor's cache, for who asks that in a moment and has something
    /// else to do until then.
    #[inline]
    pub fn expect_host(self, host: &str) {
        self.snapshot.expect_host(host);
    }

    /// The base domain: tenants answer at one label before it.
    #[must_use]
    pub fn base_domain(self) -> &'a str {
        self.snapshot.catalog.suffix.get(1..).unwrap_or_default()
    }

    /// The tenant of a slug.
    #[must_use]
    #[inline]
    pub fn by_slug(self, slug: &str) -> Option<&'a Arc<Route>> {
        self.snapshot.by_slug(slug)
    }

    /// The tenant of an id.
    #[must_use]
    #[inline]
    pub fn by_id(self, id: TenantId) -> Option<&'a Arc<Route>> {
        self.snapshot.by_id(id)
    }

    /// Every route, in no order: for operators' questions, not for requests.
    pub fn routes(self) -> impl Iterator<Item = &'a Arc<Route>> {
        self.snapshot.ids.iter()
    }

    /// A cell.
    #[must_use]
    pub fn cell(self, name: &CellName) -> Option<&'a Arc<Cell>> {
        self.snapshot.cells.get(name)
    }

    /// An identity provider.
    #[must_use]
    pub fn provider(self, id: ProviderId) -> Option<&'a Arc<Provider>> {
        self.snapshot.provider(id)
    }

    /// Whether any provider has this issuer: its tokens are then for us to judge.
    #[must_use]
    pub fn knows_issuer(self, issuer: &str) -> bool {
        self.snapshot.issuer(issuer, None).is_some()
    }

    /// The providers of an issuer for an audience.
    #[must_use]
    pub fn providers(self, issuer: &str, audience: &str) -> &'a [Arc<Provider>] {
        self.snapshot.issuer(issuer, Some(audience)).map_or(&[], |issuer| &issuer.providers)
    }

    /// The API key whose text has this SHA-256.
    #[must_use]
    pub fn api_key(self, hash: &[u8; 32]) -> Option<&'a Arc<ApiKey>> {
        self.snapshot.key(hash)
    }

    /// A configuration document. [`Document::of`] says which version a tenant has.
    #[must_use]
    pub fn document(self, name: &str) -> Option<&'a Arc<Document>> {
        self.snapshot.documents.get(name)
    }

    /// The fence to put in a grant for `route`, however long ago it was read: the database's fence if the tenant still stands
    /// as `route` says, [`FENCE_UNKNOWN`] otherwise.
    #[must_use]
    pub fn fence_of(self, route: &Route) -> i64 {
        let fence = route.home.fence.load(Ordering::Acquire);
        // Only now: the placements of that fence were shown before it.
        let stands = |snapshot: &Snapshot| snapshot.by_id(route.id).is_some_and(|now| now.same_standing(route));
        let stands = if self.current.version.load(Ordering::Acquire) == self.snapshot.version {
            stands(self.snapshot)
        } else {
            stands(&self.current.newest.load())
        };
        if stands { fence } else { FENCE_UNKNOWN }
    }
}
