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
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use insula_core::{CellName, KeyId, ProviderId, TenantId};
use prefetch_index::prefetch_index;

use crate::document::Document;
use crate::host;
use crate::identity::{ApiKey, Issuer, Provider};
use crate::route::{Card, Database, Route};
use crate::row::{Cell, DatabaseId};
use crate::table::{Hash, Place, Table};

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
    /// With cards: what a name is asked for is mostly whether its tenant's request goes on.
    pub(crate) slugs: Table<Route, Card, 1>,
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
            slugs: Table::with_cards(ROUTE_BITS, |route| route.card.clone()),
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
        Some(self.slug(slug)?.2)
    }

    /// Its place in the table of slugs, its card, its route.
    #[inline]
    fn slug(&self, slug: &str) -> Option<(Place, &Card, &Arc<Route>)> {
        self.slugs.find_card(self.hash_text(slug), |card| card.slug.as_str() == slug)
    }

    /// The tenant of `SLUG.<base domain>` as most write it; what is no slug is not found, whatever it holds.
    #[inline]
    fn plain_host(&self, text: &str) -> Option<(Place, &Card, &Arc<Route>)> {
        self.slug(text.strip_suffix(&*self.catalog.suffix)?)
    }

    #[inline]
    fn expect_host<'t>(&self, text: &'t str) -> Option<&'t str> {
        let label = text.strip_suffix(&*self.catalog.suffix)?;
        self.slugs.expect(self.hash_text(label));
        Some(label)
    }

    /// The tenant of any other spelling, or of a domain of its own.
    #[cold]
    fn odd_host(&self, text: &str) -> Option<&Arc<Route>> {
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

/// A thread's own hold on a snapshot: what it hands out counts here, in a counter that hardly anybody else writes.
pub(crate) struct Reading {
    snapshot: Arc<Snapshot>,
}

thread_local! {
    /// The snapshot that this thread read last, so that reading on costs one look at a version number and no shared counter. A
    /// thread that never reads again keeps its last one alive: what has changed since, twice.
    static LAST: RefCell<Option<Arc<Reading>>> = const { RefCell::new(None) };
}

impl Current {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let catalog = Arc::clone(&snapshot.catalog);
        Self { newest: ArcSwap::from_pointee(snapshot), version: AtomicU64::new(0), catalog }
    }

    /// Shows a version of the one writer's; fences that belong to it come after this. Answers the one before, which others may still read.
    pub(crate) fn show(&self, working: &mut Snapshot) -> Arc<Snapshot> {
        working.version += 1;
        let before = self.newest.swap(Arc::new(working.clone()));
        self.version.store(working.version, Ordering::Release);
        before
    }

    /// Calls `f` with the newest snapshot.
    #[inline]
    pub(crate) fn look<R>(&self, f: impl FnOnce(View<'_>) -> R) -> R {
        LAST.with(|last| {
            let version = self.version.load(Ordering::Acquire);
            if let Ok(last) = last.try_borrow()
                && let Some(reading) = &*last
                && reading.snapshot.version >= version
                && Arc::ptr_eq(&reading.snapshot.catalog, &self.catalog)
            {
                return f(View { snapshot: &reading.snapshot, reading, current: self });
            }
            let reading = Arc::new(Reading { snapshot: self.newest.load_full() });
            // Not while an outer look holds the old one.
            if let Ok(mut last) = last.try_borrow_mut() {
                *last = Some(Arc::clone(&reading));
            }
            f(View { snapshot: &reading.snapshot, reading: &reading, current: self })
        })
    }
}

/// The catalog at one revision, for the length of a closure ([`crate::Catalog::look`]).
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) snapshot: &'a Snapshot,
    reading: &'a Arc<Reading>,
    current: &'a Current,
}

/// A tenant as a look at the catalog finds it: its card is at hand, the rest of its route may not be.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    card: &'a Card,
    route: &'a Arc<Route>,
    /// Where its card lies, if it was found by its slug.
    place: Option<(&'a Arc<Reading>, Place)>,
}

impl<'a> Known<'a> {
    /// The whole of it.
    #[must_use]
    #[inline]
    pub fn route(self) -> &'a Arc<Route> {
        self.route
    }

    /// To be held beyond the look. Its route is not even fetched ahead: where its address has to be looked up first, a processor waits for that.
    #[must_use]
    #[inline]
    pub fn found(self) -> Found {
        Found(match self.place {
            Some((reading, place)) => Kept::There(Arc::clone(reading), place),
            None => Kept::Route(Arc::clone(self.route)),
        })
    }
}

impl<'a> From<&'a Arc<Route>> for Known<'a> {
    fn from(route: &'a Arc<Route>) -> Self {
        Self { card: &route.card, route, place: None }
    }
}

impl Deref for Known<'_> {
    type Target = Card;
    #[inline]
    fn deref(&self) -> &Card {
        self.card
    }
}

/// A tenant that was found: its card at hand, its route one step away.
///
/// Made for the while of a request. It keeps what of the catalog has changed since in memory twice: who goes on for long calls [`Found::keep`].
#[derive(Clone)]
pub struct Found(Kept);

#[derive(Clone)]
enum Kept {
    /// In a snapshot's table.
    There(Arc<Reading>, Place),
    Route(Arc<Route>),
}

impl Found {
    /// Identity. The first that is asked of its route waits for that.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.route().id
    }

    /// The whole of it. Where it lies is at hand; what it says is waited for.
    #[must_use]
    #[inline]
    pub fn route(&self) -> &Arc<Route> {
        self.parts().1
    }

    /// Its route, to keep.
    #[must_use]
    pub fn arc(&self) -> Arc<Route> {
        let route = self.route();
        // The second of its two lines of memory, while the first is waited for.
        prefetch_index(std::slice::from_ref(&**route), 1);
        Arc::clone(route)
    }

    /// Keeps nothing but its route in memory from now on.
    pub fn keep(&mut self) {
        if let Kept::There(..) = self.0 {
            self.0 = Kept::Route(self.arc());
        }
    }

    #[inline]
    fn parts(&self) -> (&Card, &Arc<Route>) {
        match &self.0 {
            Kept::There(reading, place) => reading.snapshot.slugs.at(*place),
            Kept::Route(route) => (&route.card, route),
        }
    }
}

impl From<Arc<Route>> for Found {
    fn from(route: Arc<Route>) -> Self {
        Self(Kept::Route(route))
    }
}

impl Deref for Found {
    type Target = Card;
    #[inline]
    fn deref(&self) -> &Card {
        self.parts().0
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.route().fmt(f)
    }
}

impl<'a> View<'a> {
    /// The tenant of a `Host` header or an authority.
    #[must_use]
    #[inline]
    pub fn by_host(self, host: &str) -> Option<&'a Arc<Route>> {
        self.snapshot.plain_host(host).map(|(.., route)| route).or_else(|| self.snapshot.odd_host(host))
    }

    /// As [`View::by_host`]; its route is not looked at.
    #[must_use]
    #[inline]
    pub fn known_by_host(self, host: &str) -> Option<Known<'a>> {
        let plain = self.snapshot.plain_host(host);
        let plain = plain.map(|(place, card, route)| Known { card, route, place: Some((self.reading, place)) });
        plain.or_else(|| self.snapshot.odd_host(host).map(Known::from))
    }

    /// Has what [`View::by_host`] looks at first fetched into the processor's cache, for who asks that in a moment and has something
    /// else to do until then. Answers what the slug would be, if the host is one of the base domain.
    #[inline]
    pub fn expect_host(self, host: &str) -> Option<&str> {
        self.snapshot.expect_host(host)
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
