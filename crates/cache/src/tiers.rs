//! Tiers by a small number, and how often their reads found something.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Tiers that are told apart in metrics; further ones count as the last.
pub(crate) const MOST: usize = 8;

/// The tiers' names, in the order in which they were first seen. Names come from plans, so they are few.
#[derive(Debug, Default)]
pub(crate) struct Tiers([OnceLock<Box<str>>; MOST]);

impl Tiers {
    /// The tier's number: below [`MOST`].
    #[inline]
    pub(crate) fn number(&self, name: &str) -> usize {
        self.0.iter().position(|known| **known.get_or_init(|| name.into()) == *name).unwrap_or(MOST - 1)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.iter().enumerate().filter_map(|(number, name)| Some((number, &**name.get()?)))
    }
}

/// Reads of one shard, by tier, since they were last drained: that is often enough for 32 bits.
#[derive(Debug, Default)]
pub(crate) struct Reads([AtomicU32; MOST]);

impl Reads {
    #[inline]
    pub(crate) fn count(&self, tier: usize) {
        if let Some(counter) = self.0.get(tier) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn drain(&self, tier: usize) -> u32 {
        self.0.get(tier).map_or(0, |counter| counter.swap(0, Ordering::Relaxed))
    }
}
