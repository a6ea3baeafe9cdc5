//! What was worked out once, remembered: a table of fixed size that is read without a lock and forgets by itself.
//!
//! Not for: anything that must be found again; an entry may be displaced at any time, and is then worked out anew.
//! Always: as many entries as it was made for at most; an expired one is not found.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use foldhash::quality::RandomState;

/// Counts what had to be worked out. What was found is not counted: it is the hot path, and requests are counted anyway.
pub(super) fn missed(cache: &'static str) {
    metrics::counter!("insula_edge_misses_total", "cache" => cache).increment(1);
}

/// Places where one entry may be: as many can share a hash's neighbourhood before one displaces another.
const WAYS: usize = 4;

/// A table of [`Arc`]s by hash. Seeded at random, so that nobody can choose what displaces what.
pub(super) struct Seen<T> {
    slots: Box<[ArcSwapOption<Entry<T>>]>,
    hasher: RandomState,
}

struct Entry<T> {
    hash: u64,
    expires: i64,
    value: T,
}

impl<T> Seen<T> {
    /// A table for `most` entries or a little more.
    pub(super) fn new(most: usize) -> Self {
        let slots = most.max(WAYS).next_power_of_two();
        Self { slots: (0..slots).map(|_| ArcSwapOption::empty()).collect(), hasher: RandomState::default() }
    }

    /// The hash of a key.
    pub(super) fn hash(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    fn ways(&self, hash: u64) -> &[ArcSwapOption<Entry<T>>] {
        // The mask makes the cast harmless.
        let first = hash as usize & (self.slots.len() - 1) & !(WAYS - 1);
        &self.slots[first..first + WAYS]
    }

    /// What `take` makes of the first entry of this hash that is good at `now` and that it takes.
    pub(super) fn find<R>(&self, hash: u64, now: i64, take: impl Fn(&T) -> Option<R>) -> Option<R> {
        let good = |entry: &Entry<T>| (entry.hash == hash && now < entry.expires).then(|| take(&entry.value)).flatten();
        self.ways(hash).iter().find_map(|slot| slot.load().as_deref().and_then(good))
    }

    /// Remembers: in place of an entry that has expired or that `same` says is this one's predecessor, else of the one that would
    /// expire first.
    pub(super) fn put(&self, hash: u64, now: i64, expires: i64, value: T, same: impl Fn(&T) -> bool) {
        let ways = self.ways(hash);
        let worth = |slot: &ArcSwapOption<Entry<T>>| match slot.load().as_deref() {
            Some(entry) if entry.hash == hash && same(&entry.value) => i64::MIN,
            Some(entry) if now < entry.expires => entry.expires,
            Some(_) | None => i64::MIN + 1,
        };
        if let Some(slot) = ways.iter().min_by_key(|slot| worth(slot)) {
            slot.store(Some(Arc::new(Entry { hash, expires, value })));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_until_they_expire_and_their_number_is_bounded() {
        let seen = Seen::<u32>::new(64);
        for n in 0..100_000_u32 {
            let hash = seen.hash(n);
            seen.put(hash, 0, 10, n, |known| *known == n);
            assert_eq!(seen.find(hash, 9, |known| (*known == n).then_some(n)), Some(n), "what was just put is there");
            assert_eq!(seen.find(hash, 10, |known| (*known == n).then_some(n)), None, "and expires");
        }
        assert_eq!(seen.slots.len(), 64);
    }

    #[test]
    fn a_newer_value_takes_its_predecessors_place() {
        let seen = Seen::<(u32, u32)>::new(4);
        for version in 0..100 {
            let hash = seen.hash(7);
            seen.put(hash, 0, 10 + i64::from(version), (7, version), |known| known.0 == 7);
            assert_eq!(seen.find(hash, 0, |known| Some(known.1)), Some(version));
        }
    }
}
