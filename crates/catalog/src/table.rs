//! A hash table of which many versions share what is the same.
//!
//! Two levels of arrays of pointers lead to shards, each an open-addressing table of pointers. A version never changes once it
//! is shared: the writer edits a copy, which costs the shards that change (a few hundred slots at a million entries) and the
//! pointers above them. A look-up is two steps through small, hot arrays, one into the shard and one to the item; the item's own
//! key is compared, as hashes may collide. Beside the pointer may lie a *card*, a copy of what is asked of the item most: whoever needs no more
//! than that never waits for the item's own memory.

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

pub(crate) struct Table<T, C = (), const N: usize = 4> {
    groups: Box<[Group<T, C, N>]>,
    bits: u32,
    card: fn(&T) -> C,
}

/// Two thirds full with four slots to a line: 90 of a hundred items are in the first that a search looks at. Three quarters with one: 70, and 79 in
/// the first two.
type Shard<T, C, const N: usize> = Arc<[Line<T, C, N>]>;
type Group<T, C, const N: usize> = Arc<[Shard<T, C, N>]>;

/// As many slots as a cache line holds: a search that has it need not wait for another one, mostly.
#[repr(align(64))]
struct Line<T, C, const N: usize>([Slot<T, C>; N]);

struct Slot<T, C> {
    /// The high half of the hash.
    tag: u32,
    entry: Option<Entry<T, C>>,
}

struct Entry<T, C> {
    card: C,
    item: Arc<T>,
}

/// Where an item lies, in one version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    group: u16,
    shard: u16,
    line: u32,
    slot: u32,
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

impl<T, C, const N: usize> Clone for Table<T, C, N> {
    fn clone(&self) -> Self {
        Self { groups: self.groups.clone(), bits: self.bits, card: self.card }
    }
}

impl<T> Table<T> {
    /// An empty table of 2^`bits` groups of 2^`bits` shards.
    pub(crate) fn new(bits: u32) -> Self {
        Self::with_cards(bits, |_| ())
    }
}

impl<T, C, const N: usize> Table<T, C, N> {
    /// As [`Table::new`]; `card` is what lies beside an item. Slot and card have to fit a line `N` times.
    pub(crate) fn with_cards(bits: u32, card: fn(&T) -> C) -> Self {
        const { assert!(size_of::<Line<T, C, N>>() == 64) };
        let empty: Shard<T, C, N> = Arc::new([]);
        let group: Group<T, C, N> = (0..1usize << bits).map(|_| Arc::clone(&empty)).collect();
        Self { groups: (0..1usize << bits).map(|_| Arc::clone(&group)).collect(), bits, card }
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
        let lines = &self.groups[group][shard];
        let start = start(tag(hash), lines.len());
        prefetch_index(lines, start);
        if N == 1 {
            prefetch_index(lines, start + 1);
        }
    }

    /// The item of this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: Hash, is_it: impl Fn(&T) -> bool) -> Option<&Arc<T>> {
        Some(&self.search(hash, |entry| is_it(&entry.item))?.0.item)
    }

    /// As [`Table::find`], by the card alone: its place, to go back to in the same version, its card, and the item, which was not looked at.
    #[inline]
    pub(crate) fn find_card(&self, hash: Hash, is_it: impl Fn(&C) -> bool) -> Option<(Place, &C, &Arc<T>)> {
        let (entry, place) = self.search(hash, |entry| is_it(&entry.card))?;
        Some((place, &entry.card, &entry.item))
    }

    /// What lies at a place that this very version gave.
    #[inline]
    pub(crate) fn at(&self, place: Place) -> (&C, &Arc<T>) {
        let line = &self.groups[usize::from(place.group)][usize::from(place.shard)][place.line as usize];
        let entry = line.0[place.slot as usize].entry.as_ref();
        let Some(Entry { card, item }) = entry else { unreachable!("versions never change") };
        (card, item)
    }

    #[inline]
    fn search(&self, hash: Hash, is_it: impl Fn(&Entry<T, C>) -> bool) -> Option<(&Entry<T, C>, Place)> {
        let (group, shard) = self.place(hash);
        let lines = &self.groups[group][shard];
        let n = lines.len();
        if n == 0 {
            return None;
        }
        let tag = tag(hash);
        let mut at = start(tag, n);
        loop {
            for (slot, Slot { tag: its, entry }) in lines[at].0.iter().enumerate() {
                // There is always an empty one somewhere.
                let entry = entry.as_ref()?;
                if *its == tag && is_it(entry) {
                    // Each is below a bound that fits.
                    return Some((entry, Place { group: group as u16, shard: shard as u16, line: at as u32, slot: slot as u32 }));
                }
            }
            at = if at + 1 == n { 0 } else { at + 1 };
        }
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
            Arc::make_mut(&mut self.groups[group])[shard] = shard_of(items, self.card);
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
            Arc::make_mut(&mut self.groups[group])[shard] = shard_of(items, self.card);
        }
    }

    /// No item is marked.
    pub(crate) fn marks(&self) -> Marks {
        Marks(self.shards().map(|shard| vec![false; shard.len() * N].into()).collect())
    }

    /// Marks the item of this hash for which `is_it` holds, if there is one. The marks are of the table as it is.
    pub(crate) fn mark(&self, marks: &mut Marks, hash: Hash, is_it: impl Fn(&T) -> bool) {
        let (group, shard) = self.place(hash);
        let mut slots = slots(&self.groups[group][shard]);
        let found = slots.position(|slot| slot.tag == tag(hash) && slot.item().is_some_and(|item| is_it(item)));
        let mark = found.and_then(|at| marks.0.get_mut(group * self.groups.len() + shard)?.get_mut(at));
        mark.into_iter().for_each(|mark| *mark = true);
    }

    /// The items that are not marked.
    pub(crate) fn unmarked(&self, marks: &Marks) -> impl Iterator<Item = &Arc<T>> {
        let slots = self.shards().zip(&marks.0).flat_map(|(shard, marks)| slots(shard).zip(marks));
        slots.filter(|(_, mark)| !**mark).filter_map(|(slot, _)| slot.item())
    }

    fn shards(&self) -> impl Iterator<Item = &Shard<T, C, N>> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// Every item, shard by shard.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.shards().flat_map(|shard| slots(shard)).filter_map(Slot::item)
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

impl<T, C, const N: usize> Line<T, C, N> {
    fn free(&mut self) -> Option<&mut Slot<T, C>> {
        self.0.iter_mut().find(|slot| slot.entry.is_none())
    }
}

impl<T, C> Slot<T, C> {
    fn item(&self) -> Option<&Arc<T>> {
        self.entry.as_ref().map(|entry| &entry.item)
    }
}

fn slots<T, C, const N: usize>(shard: &[Line<T, C, N>]) -> impl Iterator<Item = &Slot<T, C>> {
    shard.iter().flat_map(|line| &line.0)
}

fn items<T, C, const N: usize>(shard: &[Line<T, C, N>]) -> Vec<(u32, Arc<T>)> {
    slots(shard).filter_map(|slot| Some((slot.tag, Arc::clone(slot.item()?)))).collect()
}

fn shard_of<T, C, const N: usize>(items: Vec<(u32, Arc<T>)>, card: fn(&T) -> C) -> Shard<T, C, N> {
    // One slot more than there are items at the least: a search ends at an empty one.
    let spare = items.len() / if N == 1 { 3 } else { 2 } + 1;
    let n = if items.is_empty() { 0 } else { (items.len() + spare).div_ceil(N) };
    let line = || Line(std::array::from_fn(|_| Slot { tag: 0, entry: None }));
    let mut lines: Vec<Line<T, C, N>> = (0..n).map(|_| line()).collect();
    let slot = |tag, item: Arc<T>| Slot { tag, entry: Some(Entry { card: card(&item), item }) };
    let mut others = Vec::new();
    for (tag, item) in items {
        match lines[start(tag, n)].free() {
            Some(free) => *free = slot(tag, item),
            None => others.push((tag, item)),
        }
    }
    // Only now, so that as many as can be are where a search for them begins.
    for (tag, item) in others {
        let after = start(tag, n) + 1;
        let (before, behind) = lines.split_at_mut(after);
        if let Some(free) = behind.iter_mut().chain(before).find_map(Line::free) {
            *free = slot(tag, item);
        }
    }
    lines.into()
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

    type Batches = Vec<Vec<(u16, Option<u32>)>>;

    /// Edits of all kinds make of a table what they make of a map, and leave earlier versions as they were.
    fn is_a_map<C, const N: usize>(batches: Batches, card: fn(&(u16, u32)) -> C, key_of: impl Fn(&C) -> Option<u16>) {
        let mut table = Table::<(u16, u32), C, N>::with_cards(2, card);
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
            assert_eq!(unmarked, expected);
            for key in 0..200 {
                table.expect(hash(key));
                let found = table.find(hash(key), |item| item.0 == key).map(|f| f.1);
                assert_eq!(found, model.get(&key).map(|item| item.1));
                let by_card = table.find_card(hash(key), |card| key_of(card) == Some(key));
                assert_eq!(by_card.map(|(_, _, item)| item.1), found.filter(|_| key_of(&card(&(key, 0))).is_some()));
                if let Some((place, card, item)) = by_card {
                    let (there, same) = table.at(place);
                    assert!(key_of(there) == key_of(card) && Arc::ptr_eq(same, item));
                }
            }
            assert_eq!(table.iter().count(), model.len());
            versions.push((table.clone(), model.clone()));
        }
        for (table, model) in versions {
            assert_eq!(table.iter().count(), model.len());
            assert!(table.iter().all(|item| model.get(&item.0).is_some_and(|known| Arc::ptr_eq(known, item))));
        }
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(batches in proptest::collection::vec(proptest::collection::vec((0u16..200, any::<Option<u32>>()), 0..40), 0..20)) {
            is_a_map::<(), 4>(batches.clone(), |_| (), |()| None);
            // A card as large as a route's.
            is_a_map::<[u64; 6], 1>(batches, |item| [item.0.into(); 6], |card| u16::try_from(card[0]).ok());
        }
    }
}
