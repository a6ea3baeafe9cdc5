//! A part of the first level: the entries of some tenants, and each one's queues.
//!
//! Always: all entries of a tenant are in one shard; an entry is found only by its whole key (tenant, resource, bytes), compared and not only
//! hashed. What a hit reads of an entry is 48 bytes ([`Line`]), which is what a hit costs; the rest lies elsewhere. The table that leads
//! there is small, and knows where the value is ([`Near`]): line and value are fetched together.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use hashbrown::HashTable;
use insula_core::TenantNo;

use crate::key::{INLINE, KeyBytes, Short};
use crate::lane::{Lane, MOST_USES, Ticket};
use crate::near::Near;
use crate::ticks::Moment;
use crate::tiers;

/// A value of any type; `None` when it is known that there is none.
pub(crate) type Held = Option<Arc<dyn Any + Send + Sync>>;

/// Rounds that a search for who gives way may take: then the next one has to.
const ROUNDS: usize = 64;

/// Whose, of which resource, called what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) hash: u64,
    pub(crate) tenant: TenantNo,
    pub(crate) resource: u64,
    /// The resource's small number ([`crate::numbers`]); what belongs to `NONE` is not remembered.
    pub(crate) number: u8,
    pub(crate) key: &'a KeyBytes,
}

impl Name<'_> {
    /// The tenant's number as lines have it. 0 is nobody's: what belongs to a number that does not fit is not remembered.
    #[inline]
    pub(crate) fn no(&self) -> u32 {
        u32::try_from(self.tenant.get()).unwrap_or(0)
    }
}

/// What was known when an entry was found good: its count of what was forgotten, and the newest epoch of the tenant's placement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) stirred: u32,
    pub(crate) placement: u32,
}

/// An entry that is to be kept.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) value: Held,
    pub(crate) expires: Moment,
    pub(crate) generation: u32,
    pub(crate) weight: u32,
    pub(crate) tier: usize,
}

/// What is left of an entry that was removed.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) tenant: TenantNo,
    pub(crate) weight: u32,
    /// The tenant's, when it was kept.
    pub(crate) tier: usize,
    /// Dropped by whoever removed it, after the lock.
    _value: Held,
}

/// What a hit reads of an entry. Every byte of it costs time: what all of them take together has to stay in the processor's cache.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Line {
    pub(crate) value: Held,
    key: [u8; INLINE],
    /// As [`Seen`]: while the count stands still, nothing of it was forgotten.
    stirred: AtomicU32,
    /// Not from then on.
    pub(crate) expires: Moment,
    tenant: u32,
    /// The low part of [`Seen`]'s placement, and the tenant's tier above it.
    standing: u16,
    /// Of the resource.
    number: u8,
    /// Uses since it was last looked at, in two bits, and the key's length.
    marks: AtomicU8,
}

const _: () = assert!(size_of::<Line>() == 48);
/// The part of the marks that counts uses.
const USES: u8 = 3;
/// Bits of the standing that tell one placement of a tenant from another. A placement of so many changes later would be taken for the same, if this
/// process had noticed none of those between while the entry lived.
const PLACEMENT: u32 = 13;
const _: () = assert!(MOST_USES <= USES && tiers::MOST <= 1 << (u16::BITS - PLACEMENT) && INLINE < 63);

/// Placement and tier in 16 bits.
#[inline]
const fn standing(placement: u32, tier: usize) -> u16 {
    (placement & ((1 << PLACEMENT) - 1)) as u16 | (tier as u16) << PLACEMENT
}

/// The rest of an entry.
#[derive(Debug)]
pub(crate) struct Rest {
    hash: u64,
    pub(crate) tenant: TenantNo,
    pub(crate) resource: u64,
    /// A key that is not short.
    long: Option<Box<[u8]>>,
    pub(crate) generation: u32,
    weight: u32,
    stamp: u32,
    main: bool,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
struct Spot {
    place: u32,
    value: Near,
}

/// A shard's entries, by place. Places of those that are gone are given again.
#[derive(Debug, Default)]
struct Entries {
    lines: Vec<Line>,
    /// `None` where nothing is.
    rests: Vec<Option<Rest>>,
    free: Vec<u32>,
}

impl Line {
    /// Whether nothing of what it belongs to was forgotten since it was last found good.
    #[inline]
    pub(crate) fn is_as_seen(&self, seen: Seen) -> bool {
        self.stirred.load(Ordering::Relaxed) == seen.stirred && standing(self.standing.into(), 0) == standing(seen.placement, 0)
    }

    /// It was found good by what was seen.
    pub(crate) fn see(&self, seen: Seen) {
        self.stirred.store(seen.stirred, Ordering::Relaxed);
    }

    #[inline]
    fn has_key(&self, key: &Short) -> bool {
        self.key == key.bytes && self.marks.load(Ordering::Relaxed) / (USES + 1) == key.len
    }

    /// Counts a use, and answers the tenant's tier as it was when this was kept. Two at once may count as one; whoever has enough is not written to.
    #[inline]
    pub(crate) fn used(&self) -> usize {
        let marks = self.marks.load(Ordering::Relaxed);
        if marks & USES < MOST_USES {
            self.marks.store(marks + 1, Ordering::Relaxed);
        }
        self.tier()
    }

    #[inline]
    fn tier(&self) -> usize {
        usize::from(self.standing >> PLACEMENT)
    }

    fn uses(&mut self) -> u8 {
        *self.marks.get_mut() & USES
    }

    fn set_uses(&mut self, uses: u8) {
        let marks = self.marks.get_mut();
        *marks = *marks & !USES | uses;
    }
}

impl Entries {
    fn put(&mut self, line: Line, rest: Rest) -> Spot {
        let value = Near::of(&line.value);
        let place = match self.free.pop() {
            Some(place) => {
                self.lines[place as usize] = line;
                self.rests[place as usize] = Some(rest);
                place
            }
            None => {
                self.lines.push(line);
                self.rests.push(Some(rest));
                // They fit in memory: not four thousand million.
                (self.lines.len() - 1) as u32
            }
        };
        Spot { place, value }
    }

    #[inline]
    fn rest(&self, place: u32) -> Option<&Rest> {
        self.rests.get(place as usize)?.as_ref()
    }

    fn parts(&mut self, place: u32) -> Option<(&mut Line, &mut Rest)> {
        Some((self.lines.get_mut(place as usize)?, self.rests.get_mut(place as usize)?.as_mut()?))
    }

    fn take(&mut self, place: u32) -> Option<(Held, usize, Rest)> {
        let rest = self.rests.get_mut(place as usize)?.take()?;
        self.free.push(place);
        let line = self.lines.get_mut(place as usize)?;
        Some((line.value.take(), line.tier(), rest))
    }
}

/// Found first is what is asked first.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Shard {
    table: HashTable<Spot>,
    entries: Entries,
    lanes: HashMap<TenantNo, Lane, foldhash::fast::RandomState>,
    stamp: u32,
}

impl Shard {
    /// The line of that name, and its place.
    #[inline]
    pub(crate) fn find(&self, name: &Name<'_>) -> Option<(&Line, u32)> {
        let is_it = is(name, &self.entries);
        let spot = self.table.find(name.hash, |spot| {
            spot.value.fetch(&self.entries.lines);
            is_it(spot)
        })?;
        Some((self.entries.lines.get(spot.place as usize)?, spot.place))
    }

    /// What a hit does not read.
    pub(crate) fn rest(&self, place: u32) -> Option<&Rest> {
        self.entries.rest(place)
    }

    /// Puts an entry in; answers the one that had its name.
    pub(crate) fn put(&mut self, entry: Entry<'_>, seen: Seen) -> Option<Gone> {
        let Entry { name, value, expires, generation, weight, tier } = entry;
        let old = self.take(&name);
        // Repeats after four thousand million insertions: by then no ticket is left of the first.
        self.stamp = self.stamp.wrapping_add(1);
        let (stamp, hash) = (self.stamp, name.hash);
        let Self { table, entries, lanes, .. } = self;
        let lane = lanes.entry(name.tenant).or_default();
        let main = lane.join(hash, stamp, weight);
        lane.tidy(|hash, known| known == stamp || table.find(hash, has(known, entries)).is_some());
        let (key, long) = match name.key.split() {
            Ok(short) => (*short, None),
            Err(long) => (Short::NONE, Some(long.into())),
        };
        let (tenant, resource) = (name.tenant, name.resource);
        let rest = Rest { hash, tenant, resource, long, generation, weight, stamp, main };
        let (stirred, marks) = (AtomicU32::new(seen.stirred), AtomicU8::new(key.len * (USES + 1)));
        let (key, standing, number) = (key.bytes, standing(seen.placement, tier), name.number);
        let line = Line { value, key, stirred, expires, tenant: name.no(), standing, number, marks };
        let spot = entries.put(line, rest);
        table.insert_unique(hash, spot, |spot| entries.rest(spot.place).map_or(0, |rest| rest.hash));
        old
    }

    /// Takes out the entry of that name.
    pub(crate) fn take(&mut self, name: &Name<'_>) -> Option<Gone> {
        let spot = self.table.find_entry(name.hash, is(name, &self.entries)).ok()?.remove().0;
        self.left(spot)
    }

    /// Takes out the tenant's entry that has to give way, first of all one that is `dead`.
    pub(crate) fn evict(&mut self, tenant: TenantNo, dead: impl Fn(&Line, &Rest) -> bool) -> Option<Gone> {
        let lane = self.lanes.get_mut(&tenant)?;
        let mut rounds = 0;
        while let Some(ticket) = lane.next() {
            let Ok(found) = self.table.find_entry(ticket.hash, has(ticket.stamp, &self.entries)) else { continue };
            let Some((line, rest)) = self.entries.parts(found.get().place) else { continue };
            let uses = line.uses();
            rounds += 1;
            if uses > 0 && rounds <= ROUNDS && !dead(line, rest) {
                // From the small queue it starts afresh.
                line.set_uses(if ticket.main { uses - 1 } else { 0 });
                rest.main = true;
                lane.put_back(ticket, rest.weight);
                continue;
            }
            let spot = found.remove().0;
            if let Ticket { main: false, hash, .. } = ticket {
                lane.remember(hash);
            }
            return self.left(spot);
        }
        None
    }

    /// Takes out all that are `dead`.
    pub(crate) fn sweep(&mut self, dead: impl Fn(&Line, &Rest) -> bool) -> Vec<Gone> {
        let entries = &mut self.entries;
        let gone = |spot: &mut Spot| entries.parts(spot.place).is_none_or(|(line, rest)| dead(line, rest));
        let gone: Vec<Spot> = self.table.extract_if(gone).collect();
        gone.into_iter().filter_map(|spot| self.left(spot)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    fn left(&mut self, spot: Spot) -> Option<Gone> {
        let (value, tier, Rest { tenant, weight, main, .. }) = self.entries.take(spot.place)?;
        if let Some(lane) = self.lanes.get_mut(&tenant) {
            lane.gone(main, weight);
            if lane.is_empty() {
                self.lanes.remove(&tenant);
            }
        }
        Some(Gone { tenant, weight, tier, _value: value })
    }

    #[cfg(test)]
    pub(crate) fn weights(&self) -> impl Iterator<Item = u32> {
        self.table.iter().filter_map(|spot| self.entries.rest(spot.place)).map(|rest| rest.weight)
    }
}

/// Finds the line of a name.
#[inline]
fn is(name: &Name<'_>, entries: &Entries) -> impl Fn(&Spot) -> bool {
    let no = name.no();
    move |spot| {
        let Some(line) = entries.lines.get(spot.place as usize) else { return false };
        line.tenant == no
            && line.number == name.number
            && match name.key.split() {
                Ok(short) => line.has_key(short),
                Err(long) => {
                    line.has_key(&Short::NONE) && entries.rest(spot.place).is_some_and(|rest| rest.long.as_deref() == Some(long))
                }
            }
    }
}

/// Finds the line of a stamp.
fn has(stamp: u32, entries: &Entries) -> impl Fn(&Spot) -> bool {
    move |spot| entries.rest(spot.place).is_some_and(|rest| rest.stamp == stamp)
}
