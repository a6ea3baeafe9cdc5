//! Settings of what a process remembers for its tenants.

use std::time::Duration;

use insula_cache::{CacheConfig, SecondLevel};

use super::ConfigError;
use super::text::{Vars, wrong};

const BYTES: &str = "INSULA_CACHE_BYTES";
const TTL: &str = "INSULA_CACHE_TTL";
/// What the processes of one installation share.
const NAMESPACE: &str = "insula";
const URL: &str = "INSULA_CACHE_URL";

pub(super) const NAMES: &[&str] = &[BYTES, TTL, URL];

/// `INSULA_CACHE_BYTES`: memory for all tenants together, default 64 MiB, 0 for none. `INSULA_CACHE_TTL`: how many seconds old a value may be at
/// most, for single tiers: `bronze=60,gold=600`; an hour for the others. `INSULA_CACHE_URL`: the Redis or Valkey server that is the second level
/// and carries what is forgotten to the other processes: `redis://[:PASSWORD@]HOST:PORT/DATABASE`. A secret.
pub(super) fn read(vars: Vars<'_>) -> Result<CacheConfig, ConfigError> {
    let mut config = CacheConfig::default();
    if let Some(text) = vars.get(BYTES) {
        config.capacity = text.parse().map_err(|_| wrong(BYTES, format!("{text:?} is not a number of bytes")))?;
    }
    for text in vars.list(TTL) {
        let bound = text.split_once('=').and_then(|(tier, seconds)| Some((tier.trim(), seconds.trim().parse::<u64>().ok()?)));
        let (tier, seconds) = bound.ok_or_else(|| wrong(TTL, format!("{text:?} is not TIER=SECONDS")))?;
        config.tiers.insert(tier.to_owned(), Duration::from_secs(seconds));
    }
    if let Some(url) = vars.get(URL) {
        config.second = Some(SecondLevel::new(url, NAMESPACE).map_err(|error| wrong(URL, error))?);
    }
    Ok(config)
}
