//! The first level: what this process remembers for its tenants.
//!
//! Always: what entries weigh is never more than the capacity, because the ledger grants it before an entry is there and takes it back after it is
//! gone; no two locks are held at once; whoever was told that something is forgotten is not shown it any more.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use insula_core::TenantNo;
use insula_planner::memory::{Answer, Memory};
use insula_planner::slab::Slab;

use crate::key::KeyBytes;
use crate::shard::{Entry, Held, Name, Shard};
use crate::ticks::Ticks;
use crate::tiers::{Reads, Tiers};

/// Shards; a power of two. Few and large: small tables cost a look-up of their page on each hit.
const SHARDS: usize = 16;
/// Generations of a tenant: a resource has one of them, by its id. Two resources that share one are forgotten together.
const GENERATIONS: usize = 6;
/// Entries that one tenant gives at a time.
const AT_A_TIME: usize = 8;
/// Times that an entry asks for memory, before it is not kept: others may take what was freed for it.
const ATTEMPTS: usize = 32;

/// What counts of a tenant when something is kept for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) weight: u32,
    pub(crate) quota: u64,
}

/// What became of an entry that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    /// It was forgotten while it was made.
    Outdated,
    /// Neither the quota nor what others leave has room.
    NoRoom,
}

/// What is known of a tenant, whether or not it has entries.
#[derive(Debug, Default)]
pub(crate) struct Tenancy {
    generations: [AtomicU32; GENERATIONS],
    /// The newest epoch of its placement that was seen here, its low half.
    placement: AtomicU32,
    /// Things forgotten of which the other processes are not told yet: until then the second level may be outdated.
    pub(crate) untold: AtomicU32,
}

/// Hits, the lock and the table's head are in one line of memory.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Place {
    hits: Reads,
    shard: RwLock<Shard>,
    misses: Reads,
}

#[derive(Debug)]
pub(crate) struct Store {
    places: Box<[Place]>,
    memory: Mutex<Memory>,
    tenants: Slab<Tenancy>,
    /// Part of every generation: raised to forget everything.
    epoch: AtomicU32,
    hasher: foldhash::fast::RandomState,
    pub(crate) ticks: Ticks,
    pub(crate) tiers: Tiers,
}

impl Store {
    pub(crate) fn new(capacity: u64, ticks: Ticks) -> Self {
        Self {
            places: (0..SHARDS).map(|_| Place::default()).collect(),
            memory: Mutex::new(Memory::new(capacity)),
            tenants: Slab::new(),
            epoch: AtomicU32::new(0),
            hasher: foldhash::fast::RandomState::default(),
            ticks,
            tiers: Tiers::default(),
        }
    }

    #[inline]
    pub(crate) fn name<'a>(&self, tenant: TenantNo, resource: u64, key: &'a KeyBytes) -> Name<'a> {
        Name { hash: self.hash(tenant, resource, key), tenant, resource, key }
    }

    #[inline]
    fn hash(&self, tenant: TenantNo, resource: u64, key: &KeyBytes) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_i64(tenant.get());
        hasher.write_u64(resource);
        hasher.write(key.as_slice());
        hasher.finish()
    }

    #[inline]
    pub(crate) fn tenancy(&self, tenant: TenantNo) -> &Tenancy {
        self.tenants.at(tenant.get().unsigned_abs())
    }

    /// A tenant stands so in the catalog: what was remembered of an earlier standing (before a move, a suspension, a restore) is forgotten.
    #[inline]
    pub(crate) fn stands(&self, tenant: TenantNo, epoch: i64) {
        // The low half is enough to tell it from the last one.
        let (epoch, known) = (epoch as u32, &self.tenancy(tenant).placement);
        if known.load(Ordering::Relaxed) < epoch && known.fetch_max(epoch, Ordering::AcqRel) < epoch {
            self.forget_tenant(tenant);
        }
    }

    /// What an entry has to carry to be shown now.
    #[inline]
    pub(crate) fn generation(&self, tenant: TenantNo, resource: u64) -> u32 {
        let own = &self.tenancy(tenant).generations[slot(resource)];
        own.load(Ordering::Acquire).wrapping_add(self.epoch.load(Ordering::Acquire))
    }

    /// The value of that name, as `show` sees it, if there is one that may be shown.
    #[inline]
    pub(crate) fn get<T>(&self, name: &Name<'_>, epoch: i64, tier: usize, show: impl FnOnce(&Held) -> Option<T>) -> Option<T> {
        let now = self.ticks.now();
        let place = self.place(name.tenant);
        let shard = read(&place.shard);
        // After the lock, and not by way of the entry: the processor fetches both lines of memory at once.
        let tenancy = self.tenancy(name.tenant);
        let known = tenancy.placement.load(Ordering::Acquire);
        let generation = self.generation(name.tenant, name.resource);
        let dead = |entry: &Entry| entry.generation != generation || entry.expires <= now || known < epoch as u32;
        let shown = shard.get(name, dead).and_then(show);
        let reads = if shown.is_some() { &place.hits } else { &place.misses };
        reads.count(tier);
        drop(shard);
        shown
    }

    /// Keeps an entry, and takes from others what they have to give for it.
    pub(crate) fn keep(&self, entry: Entry, standing: Standing) -> Kept {
        if entry.generation != self.generation(entry.tenant, entry.resource) {
            return Kept::Outdated;
        }
        let (tenant, weight) = (entry.tenant, u64::from(entry.weight));
        let hash_of = |entry: &Entry| self.hash(entry.tenant, entry.resource, &entry.key);
        for _ in 0..ATTEMPTS {
            let answer = self.memory().ask(tenant, standing.weight, standing.quota, weight);
            match answer {
                Answer::Granted => {
                    let old = write(&self.place(tenant).shard).put(hash_of(&entry), entry, hash_of);
                    if let Some(old) = old {
                        self.memory().give_back(tenant, u64::from(old.weight));
                    }
                    return Kept::Yes;
                }
                Answer::From(who) => self.reclaim(who, weight),
                Answer::Refused => break,
            }
        }
        Kept::NoRoom
    }

    /// Removes a tenant's least used entries, of so many bytes in all.
    fn reclaim(&self, tenant: TenantNo, bytes: u64) {
        let now = self.ticks.now();
        let mut gone = Vec::with_capacity(AT_A_TIME);
        let mut freed = 0;
        let mut shard = write(&self.place(tenant).shard);
        while freed < bytes && gone.len() < AT_A_TIME {
            let Some(entry) = shard.evict(tenant, |entry| self.is_dead(entry, now)) else { break };
            freed += u64::from(entry.weight);
            gone.push(entry);
        }
        drop(shard);
        self.memory().give_back(tenant, freed);
        metrics::counter!("insula_cache_evictions_total").increment(gone.len() as u64);
    }

    pub(crate) fn forget(&self, name: &Name<'_>) {
        let gone = write(&self.place(name.tenant).shard).take(name);
        if let Some(gone) = gone {
            self.memory().give_back(name.tenant, u64::from(gone.weight));
        }
    }

    pub(crate) fn forget_resource(&self, tenant: TenantNo, resource: u64) {
        self.tenancy(tenant).generations[slot(resource)].fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn forget_tenant(&self, tenant: TenantNo) {
        for generation in &self.tenancy(tenant).generations {
            generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn forget_everything(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes what would not be shown any more from one of [`Store::places`].
    pub(crate) fn sweep(&self, place: usize) {
        let Some(place) = self.places.get(place % SHARDS) else { return };
        let now = self.ticks.now();
        let gone = write(&place.shard).sweep(|entry| self.is_dead(entry, now));
        let mut memory = self.memory();
        for entry in &gone {
            memory.give_back(entry.tenant, u64::from(entry.weight));
        }
    }

    pub(crate) fn places(&self) -> usize {
        self.places.len()
    }

    /// A tier's hits and misses since the last time.
    pub(crate) fn drain_reads(&self, tier: usize) -> [u64; 2] {
        let sum = |of: fn(&Place) -> &Reads| self.places.iter().map(|place| u64::from(of(place).drain(tier))).sum();
        [sum(|place| &place.hits), sum(|place| &place.misses)]
    }

    pub(crate) fn len(&self) -> usize {
        self.places.iter().map(|place| read(&place.shard).len()).sum()
    }

    /// What the entries weigh that are there.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> u64 {
        self.places
            .iter()
            .flat_map(|place| read(&place.shard).entries().map(|entry| u64::from(entry.weight)).collect::<Vec<_>>())
            .sum()
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dead(&self, entry: &Entry, now: u64) -> bool {
        entry.expires <= now || entry.generation != self.generation(entry.tenant, entry.resource)
    }

    /// All of a tenant's entries are in one place (Fibonacci hashing: numbers are given out one after the other).
    #[inline]
    fn place(&self, tenant: TenantNo) -> &Place {
        let mixed = tenant.get().unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.places[mixed as usize % SHARDS]
    }
}

fn slot(resource: u64) -> usize {
    // The remainder fits.
    (resource % GENERATIONS as u64) as usize
}

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}
