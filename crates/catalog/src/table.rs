//! A hash table for many readers and one writer.
//!
//! An array of shards, each an immutable open-addressing table behind an [`ArcSwap`]: a reader takes the shard and probes it;
//! the writer replaces the shards that change. Reads are wait-free and allocate nothing; a change copies one shard (a few
//! hundred slots of 16 bytes at a million entries), never the table.
//!
//! Always: there is one writer at a time (the follower owns the `&mut`). A reader sees each key before or after a change, and
//! two keys of different shards may be seen on different sides of it.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

/// A hash, of which the high bits choose the slot and the low ones the shard.
pub(crate) type Hash = u64;

/// What a change does to one key.
pub(crate) enum Edit<T> {
    /// Puts an item in the place of the one that has its key, or beside the others.
    Put(Arc<T>),
    /// Removes this very item; not another one that has its key by now.
    Remove(Arc<T>),
}

pub(crate) struct Table<T> {
    shards: Box<[ArcSwap<Shard<T>>]>,
}

struct Shard<T> {
    slots: Box<[Slot<T>]>,
}

struct Slot<T> {
    hash: Hash,
    item: Option<Arc<T>>,
}

impl<T> Table<T> {
    /// A table of 2^`bits` shards.
    pub(crate) fn new(bits: u32) -> Self {
        let empty = Arc::new(Shard { slots: Box::new([]) });
        Self { shards: (0..1usize << bits).map(|_| ArcSwap::new(Arc::clone(&empty))).collect() }
    }

    fn shard_of(&self, hash: Hash) -> usize {
        // The mask makes the cast harmless.
        hash as usize & (self.shards.len() - 1)
    }

    /// The item of this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: Hash, is_it: impl Fn(&T) -> bool) -> Option<Found<T>> {
        let shard = self.shards[self.shard_of(hash)].load();
        let at = shard.find(hash, is_it)?;
        Some(Found { shard, at })
    }

    /// Carries out the edits; `same` says whether two items have the same key. Each shard is replaced once.
    pub(crate) fn edit(&self, mut edits: Vec<(Hash, Edit<T>)>, same: impl Fn(&T, &T) -> bool) {
        // Stable: edits of one key keep their order.
        edits.sort_by_key(|(hash, _)| self.shard_of(*hash));
        let mut edits = edits.into_iter().peekable();
        while let Some((hash, first)) = edits.next() {
            let shard = self.shard_of(hash);
            let mut items = self.shards[shard].load().items();
            edit_items(&mut items, hash, first, &same);
            while let Some((hash, edit)) = edits.next_if(|(hash, _)| self.shard_of(*hash) == shard) {
                edit_items(&mut items, hash, edit, &same);
            }
            self.shards[shard].store(Arc::new(Shard::of(items)));
        }
    }

    /// Every item, shard by shard.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Arc<T>)) {
        for shard in &self.shards {
            for slot in &shard.load().slots {
                if let Some(item) = &slot.item {
                    f(item);
                }
            }
        }
    }
}

fn edit_items<T>(items: &mut Vec<(Hash, Arc<T>)>, hash: Hash, edit: Edit<T>, same: &impl Fn(&T, &T) -> bool) {
    match edit {
        Edit::Put(new) => match items.iter_mut().find(|(h, item)| *h == hash && same(item, &new)) {
            Some((_, item)) => *item = new,
            None => items.push((hash, new)),
        },
        Edit::Remove(old) => items.retain(|(_, item)| !Arc::ptr_eq(item, &old)),
    }
}

impl<T> Shard<T> {
    /// Two thirds full: about two probes to a hit, within a cache line or two.
    fn of(items: Vec<(Hash, Arc<T>)>) -> Self {
        let n = items.len() + items.len() / 2 + usize::from(!items.is_empty());
        let mut slots: Box<[Slot<T>]> = (0..n).map(|_| Slot { hash: 0, item: None }).collect();
        for (hash, item) in items {
            let mut at = start(hash, n);
            while slots[at].item.is_some() {
                at = if at + 1 == n { 0 } else { at + 1 };
            }
            slots[at] = Slot { hash, item: Some(item) };
        }
        Self { slots }
    }

    fn items(&self) -> Vec<(Hash, Arc<T>)> {
        self.slots.iter().filter_map(|slot| Some((slot.hash, slot.item.clone()?))).collect()
    }

    #[inline]
    fn find(&self, hash: Hash, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        let n = self.slots.len();
        if n == 0 {
            return None;
        }
        let mut at = start(hash, n);
        // Ends at an empty slot, of which there is always one.
        while let Some(item) = &self.slots[at].item {
            if self.slots[at].hash == hash && is_it(item) {
                return Some(at);
            }
            at = if at + 1 == n { 0 } else { at + 1 };
        }
        None
    }
}

/// Where the search for a hash begins: its high half scaled to `n` (Lemire, "Fast random integer generation in an interval", 2019).
#[inline]
fn start(hash: Hash, n: usize) -> usize {
    (((hash >> 32) * n as u64) >> 32) as usize
}

/// An item, and the shard that it was found in.
pub(crate) struct Found<T> {
    shard: Guard<Arc<Shard<T>>>,
    at: usize,
}

impl<T> Deref for Found<T> {
    type Target = Arc<T>;
    #[inline]
    fn deref(&self) -> &Arc<T> {
        match &self.shard.slots[self.at].item {
            Some(item) => item,
            None => unreachable!("a slot that was found is not empty, and shards do not change"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Bad hashes on purpose: many keys share one.
    fn hash(key: u16) -> Hash {
        u64::from(key % 7) << 32 | u64::from(key % 3) | u64::from(key % 5) << 60
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(batches in proptest::collection::vec(proptest::collection::vec((0u16..200, any::<Option<u32>>()), 0..40), 0..20)) {
            let table = Table::<(u16, u32)>::new(2);
            let mut model = HashMap::<u16, Arc<(u16, u32)>>::new();
            for batch in batches {
                let mut edits = Vec::new();
                for (key, value) in batch {
                    if let Some(value) = value {
                        let item = Arc::new((key, value));
                        model.insert(key, Arc::clone(&item));
                        edits.push((hash(key), Edit::Put(item)));
                    } else if let Some(item) = model.remove(&key) {
                        edits.push((hash(key), Edit::Remove(item)));
                    }
                }
                table.edit(edits, |a, b| a.0 == b.0);
                for key in 0..200 {
                    let found = table.find(hash(key), |item| item.0 == key).map(|f| f.1);
                    prop_assert_eq!(found, model.get(&key).map(|item| item.1));
                }
                let mut n = 0;
                table.for_each(|_| n += 1);
                prop_assert_eq!(n, model.len());
            }
        }
    }
}
