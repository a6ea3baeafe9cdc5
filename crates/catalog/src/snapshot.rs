//! The catalog as one process knows it: what readers see.
//!
//! Always: reads take no lock, allocate nothing, and wait for nobody. The one order between things that readers may rely on:
//! **a fence is published after every placement that was committed with it or before it.** A reader that takes a fence *first*
//! and then finds a placement still in force holds a pair that the database will judge rightly; [`Snapshot::fence_of`] does so.
//! The other way round (a placement first, then a fence that has moved on meanwhile) would present an outdated epoch under a
//! current fence, which the database takes as "nothing changed since".

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use insula_core::{CellName, TenantId};

use crate::host;
use crate::route::{Database, Route, RouteRef};
use crate::row::{Cell, DatabaseId};
use crate::table::{Hash, Table};

/// A fence that no database has: with it the database looks at its own tables, which is always right.
pub const FENCE_UNKNOWN: i64 = -1;

/// At a million tenants about 250 routes a shard; the arrays take 32 KiB each.
const ROUTE_SHARDS: u32 = 12;
const SMALL_SHARDS: u32 = 8;

/// A custom host name and whose it is.
pub(crate) struct Domain {
    pub(crate) host: Box<str>,
    pub(crate) tenant: TenantId,
}

pub(crate) struct Snapshot {
    pub(crate) ids: Table<Route>,
    pub(crate) slugs: Table<Route>,
    pub(crate) hosts: Table<Domain>,
    pub(crate) databases: Table<Database>,
    pub(crate) cells: ArcSwap<BTreeMap<CellName, Arc<Cell>>>,
    base_domain: Box<str>,
    // Seeded at random, so that nobody can choose slugs that collide.
    hasher: RandomState,
}

impl Snapshot {
    /// An empty one. Hosts of the form `SLUG.<base_domain>` lead to tenants by slug.
    pub(crate) fn new(base_domain: &str) -> Self {
        Self {
            ids: Table::new(ROUTE_SHARDS),
            slugs: Table::new(ROUTE_SHARDS),
            hosts: Table::new(SMALL_SHARDS),
            databases: Table::new(SMALL_SHARDS),
            cells: ArcSwap::default(),
            base_domain: base_domain.into(),
            hasher: RandomState::default(),
        }
    }

    #[inline]
    pub(crate) fn hash_id(&self, id: TenantId) -> Hash {
        self.hasher.hash_one(id.uuid().as_u128())
    }

    #[inline]
    pub(crate) fn hash_text(&self, text: &str) -> Hash {
        self.hasher.hash_one(text)
    }

    pub(crate) fn hash_database(&self, cell: &str, name: &str) -> Hash {
        self.hasher.hash_one((cell, name))
    }

    #[inline]
    pub(crate) fn by_id(&self, id: TenantId) -> Option<RouteRef> {
        self.ids.find(self.hash_id(id), |route| route.id == id).map(RouteRef)
    }

    #[inline]
    pub(crate) fn by_slug(&self, slug: &str) -> Option<RouteRef> {
        self.slugs.find(self.hash_text(slug), |route| route.slug.as_str() == slug).map(RouteRef)
    }

    #[inline]
    pub(crate) fn by_host(&self, text: &str) -> Option<RouteRef> {
        let host = host::normalise(text)?;
        match host.label_under(&self.base_domain) {
            Some(slug) => self.by_slug(slug),
            None => self.by_custom_host(host.as_str()),
        }
    }

    fn by_custom_host(&self, host: &str) -> Option<RouteRef> {
        let domain = self.hosts.find(self.hash_text(host), |domain| &*domain.host == host)?;
        self.by_id(domain.tenant)
    }

    pub(crate) fn database(&self, cell: &str, name: &str) -> Option<Arc<Database>> {
        let is_it = |d: &Database| d.id.cell.as_str() == cell && &*d.id.name == name;
        self.databases.find(self.hash_database(cell, name), is_it).map(|found| Arc::clone(&found))
    }

    pub(crate) fn database_by_id(&self, id: &DatabaseId) -> Option<Arc<Database>> {
        self.database(id.cell.as_str(), &id.name)
    }

    /// The fence to put in a grant for `route`, however long ago it was read: the database's fence if the tenant still stands
    /// as `route` says, [`FENCE_UNKNOWN`] otherwise.
    pub(crate) fn fence_of(&self, route: &Route) -> i64 {
        let fence = route.home.fence.load(Ordering::Acquire);
        // Only now: the placements of that fence were published before it.
        match self.by_id(route.id) {
            Some(current) if current.same_standing(route) => fence,
            _ => FENCE_UNKNOWN,
        }
    }
}
