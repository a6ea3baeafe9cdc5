//! A part of the first level: the entries of some tenants, and each one's queues.
//!
//! Always: all entries of a tenant are in one shard; an entry is found only by its whole key (tenant, resource, bytes), compared and not only
//! hashed.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hashbrown::HashTable;
use insula_core::TenantNo;

use crate::key::KeyBytes;
use crate::lane::{Lane, MOST_USES, Ticket};

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
    pub(crate) key: &'a KeyBytes,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) tenant: TenantNo,
    pub(crate) resource: u64,
    pub(crate) key: KeyBytes,
    pub(crate) value: Held,
    /// Not from then on.
    pub(crate) expires: u64,
    pub(crate) generation: u32,
    pub(crate) weight: u32,
    stamp: u32,
    main: bool,
    uses: AtomicU8,
}

impl Entry {
    pub(crate) fn new(name: Name<'_>, value: Held, expires: u64, generation: u32, weight: u32) -> Self {
        let Name { tenant, resource, key, .. } = name;
        let (stamp, main, uses) = (0, false, AtomicU8::new(0));
        Self { tenant, resource, key: key.clone(), value, expires, generation, weight, stamp, main, uses }
    }

    #[inline]
    fn is(&self, name: &Name<'_>) -> bool {
        self.tenant == name.tenant && self.resource == name.resource && self.key == *name.key
    }

    /// Counts a use. Two at once may count as one; whoever has enough is not written to.
    #[inline]
    fn used(&self) {
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < MOST_USES {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
    }
}

/// Found first is what is asked first.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Shard {
    table: HashTable<Entry>,
    lanes: HashMap<TenantNo, Lane, foldhash::fast::RandomState>,
    stamp: u32,
}

impl Shard {
    /// The value of that name, unless it is `dead`.
    #[inline]
    pub(crate) fn get(&self, name: &Name<'_>, dead: impl FnOnce(&Entry) -> bool) -> Option<&Held> {
        let entry = self.table.find(name.hash, |entry| entry.is(name))?;
        if dead(entry) {
            return None;
        }
        entry.used();
        Some(&entry.value)
    }

    /// Puts an entry in; answers the one that had its name.
    pub(crate) fn put(&mut self, hash: u64, mut entry: Entry, hash_of: impl Fn(&Entry) -> u64) -> Option<Entry> {
        let old = self.take(&Name { hash, tenant: entry.tenant, resource: entry.resource, key: &entry.key });
        // Repeats after four thousand million insertions: by then no ticket is left of the first.
        self.stamp = self.stamp.wrapping_add(1);
        entry.stamp = self.stamp;
        let lane = self.lanes.entry(entry.tenant).or_default();
        entry.main = lane.join(hash, entry.stamp, entry.weight);
        let table = &self.table;
        lane.tidy(|hash, stamp| stamp == entry.stamp || table.find(hash, |e| e.stamp == stamp).is_some());
        self.table.insert_unique(hash, entry, hash_of);
        old
    }

    /// Takes out the entry of that name.
    pub(crate) fn take(&mut self, name: &Name<'_>) -> Option<Entry> {
        let entry = self.table.find_entry(name.hash, |entry| entry.is(name)).ok()?.remove().0;
        self.left(&entry);
        Some(entry)
    }

    /// Takes out the tenant's entry that has to give way, first of all one that is `dead`.
    pub(crate) fn evict(&mut self, tenant: TenantNo, dead: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let lane = self.lanes.get_mut(&tenant)?;
        let mut rounds = 0;
        while let Some(ticket) = lane.next() {
            let Ok(mut found) = self.table.find_entry(ticket.hash, |entry| entry.stamp == ticket.stamp) else { continue };
            let entry = found.get_mut();
            let uses = *entry.uses.get_mut();
            rounds += 1;
            if uses > 0 && rounds <= ROUNDS && !dead(entry) {
                // From the small queue it starts afresh.
                *entry.uses.get_mut() = if ticket.main { uses - 1 } else { 0 };
                entry.main = true;
                lane.put_back(ticket, entry.weight);
                continue;
            }
            let entry = found.remove().0;
            if let Ticket { main: false, hash, .. } = ticket {
                lane.remember(hash);
            }
            self.left(&entry);
            return Some(entry);
        }
        None
    }

    /// Takes out all that are `dead`.
    pub(crate) fn sweep(&mut self, dead: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let gone: Vec<Entry> = self.table.extract_if(|entry| dead(entry)).collect();
        for entry in &gone {
            self.left(entry);
        }
        gone
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    fn left(&mut self, entry: &Entry) {
        if let Some(lane) = self.lanes.get_mut(&entry.tenant) {
            lane.gone(entry.main, entry.weight);
            if lane.is_empty() {
                self.lanes.remove(&entry.tenant);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.table.iter()
    }
}
