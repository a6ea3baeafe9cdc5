//! What an operator says of the cache.

use std::collections::BTreeMap;
use std::fmt;
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
    /// What processes share.
    pub second: Option<SecondLevel>,
}

/// Where processes meet: [`SecondLevel::new`]. Prints without its address, which may hold a password.
#[derive(Clone)]
pub struct SecondLevel {
    pub(crate) client: redis::Client,
    pub(crate) namespace: String,
}

impl fmt::Debug for SecondLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondLevel").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { capacity: 64 << 20, longest: Duration::from_secs(3_600), tiers: BTreeMap::new(), second: None }
    }
}

impl CacheConfig {
    /// How old a tier's values may be.
    pub(crate) fn bound(&self, tier: &str) -> Duration {
        self.tiers.get(tier).map_or(self.longest, |own| (*own).min(self.longest))
    }
}
