//! What an operator says of the cache.

use std::collections::BTreeMap;
use std::time::Duration;

/// Settings of a process's cache.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Bytes of memory for all tenants together. 0 keeps nothing: every read loads.
    pub capacity: u64,
    /// How old a value may be, whatever its resource says.
    pub longest: Duration,
    /// The same for single tiers.
    pub tiers: BTreeMap<String, Duration>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { capacity: 64 << 20, longest: Duration::from_secs(3_600), tiers: BTreeMap::new() }
    }
}

impl CacheConfig {
    /// How old a tier's values may be.
    pub(crate) fn bound(&self, tier: &str) -> Duration {
        self.tiers.get(tier).map_or(self.longest, |own| (*own).min(self.longest))
    }
}
