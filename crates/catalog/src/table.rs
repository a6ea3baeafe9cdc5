//! A hash table of which many versions share what is the same.
//!
//! Two levels of arrays of pointers lead to shards, each an open-addressing table of pointers. A version never changes once it
//! is shared: the writer edits a copy, which costs the shards that change (a few hundred slots of 16 bytes at a million
//! entries) and the pointers above them. A look-up is two steps through small, hot arrays, one into the shard and one to the
//! item; the item's own key is compared, as hashes may collide. Beside the pointer lies a hint of the item's own choice, which is known a step
//! earlier than the item.

use std::sync::Arc;

use prefetch_index::prefetch_index;

/// A hash, of which the high half chooses the slot and the low bits the shard.
pub(crate) type Hash = u64;

/// What a change does to one key.
pub(crate) enum Edit<T> {
    /// Puts an item in the place of the one that has its key, or beside the others.
    Put(Arc<T>),
    /// Removes this very item; not another one that has its key by now.
    Remove(Arc<T>),
}

pub(crate) struct Table<T> {
    groups: Box<[Arc<[Shard<T>]>]>,
    bits: u32,
    hint: fn(&T) -> u32,
}

/// About two thirds full: two probes to a hit, mostly within a cache line.
type Shard<T> = Arc<[Slot<T>]>;

struct Slot<T> {
    /// The high half of the hash.
    tag: u32,
    hint: u32,
    item: Option<Arc<T>>,
}

type Edited<T> = (Hash, Edit<T>);

/// Edits of a whole load, by the shard that they concern.
pub(crate) struct Edits<T> {
    shards: Box<[Vec<Edited<T>>]>,
    bits: u32,
}

impl<T> Edits<T> {
    pub(crate) fn push(&mut self, hash: Hash, edit: Edit<T>) {
        let in_group = 1 << self.bits;
        let (group, shard) = place(hash, self.bits, in_group);
        let edits = &mut self.shards[group * in_group + shard];
        if edits.len() == edits.capacity() {
            // Not twice as much: for all shards together that would be megabytes that nobody needs.
            edits.reserve_exact(edits.len() / 8 + 4);
        }
        edits.push((hash, edit));
    }

    /// What is to be put.
    pub(crate) fn new_items(&self) -> impl Iterator<Item = &Arc<T>> {
        self.shards.iter().flatten().filter_map(|(_, edit)| match edit {
            Edit::Put(item) => Some(item),
            Edit::Remove(_) => None,
        })
    }
}

/// A mark for each slot of a table: less than a list of the items that were seen.
pub(crate) struct Marks(Box<[Box<[bool]>]>);

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { groups: self.groups.clone(), bits: self.bits, hint: self.hint }
    }
}

impl<T> Table<T> {
    /// An empty table of 2^`bits` groups of 2^`bits` shards.
    pub(crate) fn new(bits: u32) -> Self {
        Self::hinting(bits, |_| 0)
    }

    /// As [`Table::new`]; `hint` is what [`Table::find_then`] tells of an item before it has read it.
    pub(crate) fn hinting(bits: u32, hint: fn(&T) -> u32) -> Self {
        let empty: Shard<T> = Arc::new([]);
        let group: Arc<[Shard<T>]> = (0..1usize << bits).map(|_| Arc::clone(&empty)).collect();
        Self { groups: (0..1usize << bits).map(|_| Arc::clone(&group)).collect(), bits, hint }
    }

    /// Group, and shard in it.
    #[inline]
    fn place(&self, hash: Hash) -> (usize, usize) {
        place(hash, self.bits, self.groups.len())
    }

    /// Has the place where a search for this hash begins fetched into the processor's cache, for a [`Table::find`] in a moment.
    #[inline]
    pub(crate) fn expect(&self, hash: Hash) {
        let (group, shard) = self.place(hash);
        let slots = &self.groups[group][shard];
        prefetch_index(slots, start(tag(hash), slots.len()));
    }

    /// The item of this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: Hash, is_it: impl Fn(&T) -> bool) -> Option<&Arc<T>> {
        self.find_then(hash, |_| (), is_it)
    }

    /// As [`Table::find`]; `soon` is told the hint of what it probably is, and so can have other memory fetched together with the item's.
    #[inline]
    pub(crate) fn find_then(&self, hash: Hash, soon: impl Fn(u32), is_it: impl Fn(&T) -> bool) -> Option<&Arc<T>> {
        let (group, shard) = self.place(hash);
        let slots = &self.groups[group][shard];
        let n = slots.len();
        if n == 0 {
            return None;
        }
        let tag = tag(hash);
        let mut at = start(tag, n);
        // Ends at an empty slot, of which there is always one.
        while let Some(item) = &slots[at].item {
            if slots[at].tag == tag {
                soon(slots[at].hint);
                if is_it(item) {
                    return Some(item);
                }
            }
            at = if at + 1 == n { 0 } else { at + 1 };
        }
        None
    }

    /// Carries out the edits; `same` says whether two items have the same key. Each shard is made anew once.
    pub(crate) fn edit(&mut self, mut edits: Vec<Edited<T>>, same: impl Fn(&T, &T) -> bool) {
        // Stable: edits of one key keep their order.
        edits.sort_by_key(|(hash, _)| self.place(*hash));
        let mut edits = edits.into_iter().peekable();
        while let Some((hash, first)) = edits.next() {
            let (group, shard) = self.place(hash);
            let mut items = items(&self.groups[group][shard]);
            edit_items(&mut items, tag(hash), first, &same);
            while let Some((hash, edit)) = edits.next_if(|(hash, _)| self.place(*hash) == (group, shard)) {
                edit_items(&mut items, tag(hash), edit, &same);
            }
            Arc::make_mut(&mut self.groups[group])[shard] = shard_of(items, self.hint);
        }
    }

    /// Room for edits, to be carried out by [`Table::edit_many`].
    pub(crate) fn edits(&self) -> Edits<T> {
        Edits { shards: self.shards().map(|_| Vec::new()).collect(), bits: self.bits }
    }

    /// [`Table::edit`] for so many that to sort them would take as much memory as what they make: each shard takes the place of its edits.
    pub(crate) fn edit_many(&mut self, edits: Edits<T>, same: impl Fn(&T, &T) -> bool) {
        let in_group = self.groups.len();
        for (number, edits) in edits.shards.into_iter().enumerate().filter(|(_, edits)| !edits.is_empty()) {
            let (group, shard) = (number / in_group, number % in_group);
            let mut items = items(&self.groups[group][shard]);
            items.reserve_exact(edits.len());
            edits.into_iter().for_each(|(hash, edit)| edit_items(&mut items, tag(hash), edit, &same));
            Arc::make_mut(&mut self.groups[group])[shard] = shard_of(items, self.hint);
        }
    }

    /// No item is marked.
    pub(crate) fn marks(&self) -> Marks {
        Marks(self.shards().map(|shard| vec![false; shard.len()].into()).collect())
    }

    /// Marks the item of this hash for which `is_it` holds, if there is one. The marks are of the table as it is.
    pub(crate) fn mark(&self, marks: &mut Marks, hash: Hash, is_it: impl Fn(&T) -> bool) {
        let (group, shard) = self.place(hash);
        let slots = &self.groups[group][shard];
        let found = slots.iter().position(|slot| slot.tag == tag(hash) && slot.item.as_deref().is_some_and(&is_it));
        let mark = found.and_then(|at| marks.0.get_mut(group * self.groups.len() + shard)?.get_mut(at));
        mark.into_iter().for_each(|mark| *mark = true);
    }

    /// The items that are not marked.
    pub(crate) fn unmarked(&self, marks: &Marks) -> impl Iterator<Item = &Arc<T>> {
        let slots = self.shards().zip(&marks.0).flat_map(|(slots, marks)| slots.iter().zip(marks));
        slots.filter(|(_, mark)| !**mark).filter_map(|(slot, _)| slot.item.as_ref())
    }

    fn shards(&self) -> impl Iterator<Item = &Shard<T>> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// Every item, shard by shard.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.shards().flat_map(|shard| shard.iter()).filter_map(|slot| slot.item.as_ref())
    }
}

/// Group, and shard in it, where there are 2^`bits` = `groups` of either.
#[inline]
fn place(hash: Hash, bits: u32, groups: usize) -> (usize, usize) {
    // The mask makes the casts harmless.
    let mask = groups - 1;
    ((hash >> bits) as usize & mask, hash as usize & mask)
}

fn edit_items<T>(items: &mut Vec<(u32, Arc<T>)>, tag: u32, edit: Edit<T>, same: &impl Fn(&T, &T) -> bool) {
    match edit {
        Edit::Put(new) => match items.iter_mut().find(|(t, item)| *t == tag && same(item, &new)) {
            Some((_, item)) => *item = new,
            None => items.push((tag, new)),
        },
        Edit::Remove(old) => items.retain(|(_, item)| !Arc::ptr_eq(item, &old)),
    }
}

fn items<T>(shard: &[Slot<T>]) -> Vec<(u32, Arc<T>)> {
    shard.iter().filter_map(|slot| Some((slot.tag, Arc::clone(slot.item.as_ref()?)))).collect()
}

fn shard_of<T>(items: Vec<(u32, Arc<T>)>, hint: fn(&T) -> u32) -> Shard<T> {
    let n = items.len() + items.len() / 2 + usize::from(!items.is_empty());
    let mut slots: Vec<Slot<T>> = (0..n).map(|_| Slot { tag: 0, hint: 0, item: None }).collect();
    for (tag, item) in items {
        let mut at = start(tag, n);
        while slots[at].item.is_some() {
            at = if at + 1 == n { 0 } else { at + 1 };
        }
        slots[at] = Slot { tag, hint: hint(&item), item: Some(item) };
    }
    slots.into()
}

#[inline]
const fn tag(hash: Hash) -> u32 {
    (hash >> 32) as u32
}

/// Where the search for a hash begins: its high half scaled to `n` (Lemire, "Fast random integer generation in an interval", 2019).
#[inline]
fn start(tag: u32, n: usize) -> usize {
    ((u64::from(tag) * n as u64) >> 32) as usize
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
            let mut table = Table::<(u16, u32)>::new(2);
            let mut versions = Vec::new();
            let mut many = false;
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
                if many {
                    let mut all = table.edits();
                    edits.into_iter().for_each(|(hash, edit)| all.push(hash, edit));
                    table.edit_many(all, |a, b| a.0 == b.0);
                } else {
                    table.edit(edits, |a, b| a.0 == b.0);
                }
                many = !many;
                let mut marks = table.marks();
                (0..100).for_each(|key| table.mark(&mut marks, hash(key), |item| item.0 == key));
                let mut unmarked: Vec<_> = table.unmarked(&marks).map(|item| item.0).collect();
                unmarked.sort_unstable();
                let mut expected: Vec<_> = model.keys().copied().filter(|key| *key >= 100).collect();
                expected.sort_unstable();
                prop_assert_eq!(unmarked, expected);
                for key in 0..200 {
                    let found = table.find(hash(key), |item| item.0 == key).map(|f| f.1);
                    prop_assert_eq!(found, model.get(&key).map(|item| item.1));
                }
                prop_assert_eq!(table.iter().count(), model.len());
                versions.push((table.clone(), model.clone()));
            }
            // Earlier versions are as they were.
            for (table, model) in versions {
                prop_assert_eq!(table.iter().count(), model.len());
                prop_assert!(table.iter().all(|item| model.get(&item.0).is_some_and(|known| Arc::ptr_eq(known, item))));
            }
        }
    }
}
