//! The handle that a process holds.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use insula_catalog::Route;

use crate::config::CacheConfig;
use crate::flight::Flights;
use crate::second::{self, Second};
use crate::store::Store;
use crate::tenant::TenantCache;
use crate::ticks::Ticks;

/// Between two looks at the counters; in each, a part of the memory is swept.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in which all of the memory is swept once.
const SWEEP: usize = 16;

/// What a process remembers for its tenants. Clones share it. It has no way to a value by itself: [`Cache::of`] gives a tenant's.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: CacheConfig,
    pub(crate) store: Store,
    pub(crate) flights: Flights,
    pub(crate) second: Option<Arc<Second>>,
    /// What other processes forget is not heard.
    pub(crate) blind: AtomicBool,
}

/// How full the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Bytes that entries weigh.
    pub bytes: u64,
    /// Bytes that there are.
    pub capacity: u64,
    /// Entries, those that are not shown any more included.
    pub entries: usize,
    /// Tenants with entries.
    pub tenants: usize,
}

impl Cache {
    /// An empty cache. Inside a Tokio runtime it is swept and measured, and hears of other processes, in the background, until the last
    /// clone is gone.
    #[must_use]
    pub fn new(config: CacheConfig) -> Self {
        Self::with_ticks(config, Ticks::machine())
    }

    /// As [`Cache::new`], by a clock of the caller's.
    #[must_use]
    pub fn with_ticks(config: CacheConfig, ticks: Ticks) -> Self {
        let store = Store::new(config.capacity, ticks);
        let second = config.second.as_ref().map(|second| Arc::new(Second::new(second)));
        let blind = AtomicBool::new(second.is_some());
        let inner = Arc::new(Inner { config, store, flights: Flights::new(), second, blind });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(keep_up(Arc::downgrade(&inner)));
            if let Some(second) = &inner.second {
                runtime.spawn(second::listen(Arc::downgrade(&inner), Arc::clone(second)));
            }
        }
        Self { inner }
    }

    /// The cache of one tenant, with what its plan says.
    #[must_use]
    #[inline]
    pub fn of<'a>(&'a self, route: &'a Route) -> TenantCache<'a> {
        TenantCache::new(&self.inner, (route.no, route.id, route.placement.epoch), &route.plan)
    }

    /// Forgets everything of everybody, at once.
    pub fn forget_everything(&self) {
        self.inner.store.forget_everything();
    }

    /// How full it is.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let entries = self.inner.store.len();
        let memory = self.inner.store.memory();
        Fill { bytes: memory.used(), capacity: memory.capacity(), entries, tenants: memory.tenants() }
    }
}

async fn keep_up(inner: Weak<Inner>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut at = 0;
    loop {
        look.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let store = &inner.store;
        let places = store.places().div_ceil(SWEEP);
        (at..at + places).for_each(|place| store.sweep(place));
        at = (at + places) % store.places();
        for (number, tier) in store.tiers.names() {
            for (outcome, count) in ["hit", "miss"].into_iter().zip(store.drain_reads(number)) {
                metrics::counter!("insula_cache_reads_total", "tier" => tier.to_owned(), "outcome" => outcome).increment(count);
            }
        }
        let memory = store.memory();
        let (used, capacity, tenants) = (memory.used(), memory.capacity(), memory.tenants());
        drop(memory);
        // Exact up to 2^53.
        metrics::gauge!("insula_cache_bytes").set(used as f64);
        metrics::gauge!("insula_cache_capacity_bytes").set(capacity as f64);
        metrics::gauge!("insula_cache_tenants").set(tenants as f64);
    }
}
