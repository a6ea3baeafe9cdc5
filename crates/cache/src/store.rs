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
use crate::numbers::{NONE, Numbers};
use crate::shard::{Entry, Gone, Held, Line, Name, Rest, Seen, Shard};
use crate::ticks::{Moment, Ticks};
use crate::tiers::{Reads, Tiers};

/// Shards; a power of two. Few and large: small tables cost a look-up of their page on each hit.
const SHARDS: usize = 16;
/// Generations of a tenant: a resource has one of them, by its id. Two resources that share one are forgotten together.
const GENERATIONS: usize = 6;
/// Counts of what was forgotten; a power of two.
const STIRS: usize = 4_096;
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
    /// What was forgotten, counted for many tenants together: while a count stands still, none of theirs was, and a hit need not read the
    /// tenant's own line of memory. When it moves, each entry is looked at by its own generation once, and is good again.
    stirs: Box<[AtomicU32]>,
    /// Part of every generation: raised to forget everything.
    epoch: AtomicU32,
    hasher: foldhash::fast::RandomState,
    numbers: Numbers,
    pub(crate) ticks: Ticks,
    pub(crate) tiers: Tiers,
}

impl Store {
    pub(crate) fn new(capacity: u64, ticks: Ticks) -> Self {
        Self {
            places: (0..SHARDS).map(|_| Place::default()).collect(),
            memory: Mutex::new(Memory::new(capacity)),
            tenants: Slab::new(),
            stirs: (0..STIRS).map(|_| AtomicU32::new(0)).collect(),
            epoch: AtomicU32::new(0),
            hasher: foldhash::fast::RandomState::default(),
            numbers: Numbers::default(),
            ticks,
            tiers: Tiers::default(),
        }
    }

    #[inline]
    pub(crate) fn name<'a>(&self, tenant: TenantNo, resource: u64, key: &'a KeyBytes) -> Name<'a> {
        Name { hash: self.hash(tenant, resource, key), tenant, resource, number: self.numbers.of(resource), key }
    }

    #[inline]
    fn hash(&self, tenant: TenantNo, resource: u64, key: &KeyBytes) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_i64(tenant.get());
        hasher.write_u64(resource);
        match key.split() {
            Ok(short) => short.words().into_iter().for_each(|word| hasher.write_u64(word)),
            Err(long) => hasher.write(long),
        }
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
        if known.load(Ordering::Relaxed) < epoch {
            // In this order: who sees that the epoch is known does not see what was before it.
            self.forget_tenant(tenant);
            known.fetch_max(epoch, Ordering::AcqRel);
        }
    }

    /// What is seen now, by one who knows the tenant's placement to have that epoch. Before anything else is looked at.
    #[inline]
    fn seen(&self, tenant: TenantNo, epoch: i64) -> Seen {
        let stirred = self.stir(tenant).load(Ordering::Acquire).wrapping_add(self.epoch.load(Ordering::Acquire));
        // The low half: see `stands`.
        Seen { stirred, placement: epoch as u32 }
    }

    #[inline]
    fn stir(&self, tenant: TenantNo) -> &AtomicU32 {
        &self.stirs[mixed(tenant) as usize % STIRS]
    }

    /// What an entry has to carry to be shown now.
    #[inline]
    pub(crate) fn generation(&self, tenant: TenantNo, resource: u64) -> u32 {
        let own = &self.tenancy(tenant).generations[slot(resource)];
        own.load(Ordering::Acquire).wrapping_add(self.epoch.load(Ordering::Acquire))
    }

    /// The value of that name, as `show` sees it, if there is one that may be shown.
    #[inline]
    pub(crate) fn get<T>(&self, name: &Name<'_>, epoch: i64, tier: &str, show: impl FnOnce(&Held) -> Option<T>) -> Option<T> {
        let now = self.ticks.now();
        let seen = self.seen(name.tenant, epoch);
        let place = self.place(name.tenant);
        let shard = read(&place.shard);
        let good = |(line, place): &(&Line, u32)| {
            !line.expires.is_over(now) && (line.is_as_seen(seen) || self.is_still_good(line, shard.rest(*place), name, seen))
        };
        let shown = shard.find(name).filter(good).and_then(|(line, _)| {
            let shown = show(&line.value)?;
            place.hits.count(line.used());
            Some(shown)
        });
        if shown.is_none() {
            place.misses.count(self.tiers.number(tier));
        }
        drop(shard);
        shown
    }

    /// Something was forgotten, perhaps of another: looks at the tenant's own counts.
    #[cold]
    fn is_still_good(&self, line: &Line, rest: Option<&Rest>, name: &Name<'_>, seen: Seen) -> bool {
        let known = self.tenancy(name.tenant).placement.load(Ordering::Acquire);
        let generation = self.generation(name.tenant, name.resource);
        let good = known >= seen.placement && rest.is_some_and(|rest| rest.generation == generation);
        if good {
            line.see(seen);
        }
        good
    }

    /// Keeps an entry, and takes from others what they have to give for it.
    pub(crate) fn keep(&self, entry: Entry<'_>, standing: Standing) -> Kept {
        let (tenant, weight) = (entry.name.tenant, u64::from(entry.weight));
        if entry.name.no() == 0 || entry.name.number == NONE {
            return Kept::NoRoom;
        }
        // In this order: what is forgotten from here on stirs after it was seen, so that the entry is looked at again.
        let mut seen = self.seen(tenant, 0);
        seen.placement = self.tenancy(tenant).placement.load(Ordering::Acquire);
        if entry.generation != self.generation(tenant, entry.name.resource) {
            return Kept::Outdated;
        }
        for _ in 0..ATTEMPTS {
            let mut memory = self.memory();
            let answer = memory.ask(tenant, standing.weight, standing.quota, weight);
            let over_quota = answer == Answer::From(tenant) && memory.held_by(tenant) + weight > standing.quota;
            drop(memory);
            match answer {
                Answer::Granted => {
                    let old = write(&self.place(tenant).shard).put(entry, seen);
                    if let Some(old) = old {
                        self.give_back(&old);
                    }
                    return Kept::Yes;
                }
                Answer::From(who) => self.reclaim(who, weight, if over_quota { "quota" } else { "share" }),
                Answer::Refused => break,
            }
        }
        Kept::NoRoom
    }

    fn give_back(&self, gone: &Gone) {
        self.memory().give_back(gone.tenant, u64::from(gone.weight));
    }

    /// Removes a tenant's least used entries, of so many bytes in all.
    fn reclaim(&self, tenant: TenantNo, bytes: u64, reason: &'static str) {
        let now = self.ticks.now();
        let mut gone = Vec::with_capacity(AT_A_TIME);
        let mut freed = 0;
        let mut shard = write(&self.place(tenant).shard);
        while freed < bytes && gone.len() < AT_A_TIME {
            let Some(entry) = shard.evict(tenant, |line, rest| self.is_dead(line, rest, now)) else { break };
            freed += u64::from(entry.weight);
            gone.push(entry);
        }
        drop(shard);
        self.memory().give_back(tenant, freed);
        let tier = gone.first().and_then(|gone| self.tiers.names().find(|(number, _)| *number == gone.tier));
        if let Some((_, tier)) = tier {
            metrics::counter!("insula_cache_evictions_total", "tier" => tier.to_owned(), "reason" => reason)
                .increment(gone.len() as u64);
        }
    }

    pub(crate) fn forget(&self, name: &Name<'_>) {
        let gone = write(&self.place(name.tenant).shard).take(name);
        if let Some(gone) = gone {
            self.give_back(&gone);
        }
    }

    pub(crate) fn forget_resource(&self, tenant: TenantNo, resource: u64) {
        self.tenancy(tenant).generations[slot(resource)].fetch_add(1, Ordering::AcqRel);
        self.stir(tenant).fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn forget_tenant(&self, tenant: TenantNo) {
        for generation in &self.tenancy(tenant).generations {
            generation.fetch_add(1, Ordering::AcqRel);
        }
        self.stir(tenant).fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn forget_everything(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes what would not be shown any more from one of [`Store::places`].
    pub(crate) fn sweep(&self, place: usize) {
        let Some(place) = self.places.get(place % SHARDS) else { return };
        let now = self.ticks.now();
        let gone = write(&place.shard).sweep(|line, rest| self.is_dead(line, rest, now));
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
        self.places.iter().flat_map(|place| read(&place.shard).weights().map(u64::from).collect::<Vec<_>>()).sum()
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dead(&self, line: &Line, rest: &Rest, now: Moment) -> bool {
        line.expires.is_over(now) || rest.generation != self.generation(rest.tenant, rest.resource)
    }

    /// All of a tenant's entries are in one place.
    #[inline]
    fn place(&self, tenant: TenantNo) -> &Place {
        &self.places[(mixed(tenant) >> 16) as usize % SHARDS]
    }
}

/// Fibonacci hashing: numbers are given out one after the other.
#[inline]
const fn mixed(tenant: TenantNo) -> u64 {
    tenant.get().unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
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
