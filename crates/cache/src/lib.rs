//! The tenant cache: what a process remembers for its tenants, so that none sees, starves or outlives another's.
//!
//! For: values that are loaded again when they are forgotten. Not for: anything that must not be lost. Always:
//! - there is no way to a value but a tenant's cache ([`Cache::of`], [`TenantCache`]), and its names hold the tenant;
//! - every value has an end: its resource's time to live, within the tier's bound;
//! - memory is never more than it may be; a tenant within its share (by its tier's weight) loses nothing to others, and within a share
//!   the least frequently used gives way ([`insula_planner::memory`]);
//! - one load at a time for each thing; a load that panics or is cancelled leaves nobody waiting;
//! - what was forgotten is not shown again, also when it was being loaded at that moment.
//!
//! ```
//! use std::time::Duration;
//! use insula_cache::{Resource, TenantCache};
//!
//! const TITLES: Resource<str, Vec<String>> = Resource::new("titles").ttl(Duration::from_secs(30));
//!
//! async fn titles(cache: TenantCache<'_>) -> Result<usize, std::sync::Arc<std::io::Error>> {
//!     let titles = cache.get_or_load(&TITLES, "newest", || async { Ok(vec!["A".to_owned()]) }).await?;
//!     cache.forget_all(&TITLES);
//!     Ok(titles.len())
//! }
//! ```
//!
//! Without a tenant there is nothing to ask: a cache by itself has no way to a value,
//! ```compile_fail,E0599
//! # use insula_cache::{Cache, CacheConfig, Resource};
//! const TITLES: Resource<str, Vec<String>> = Resource::new("titles");
//! Cache::new(CacheConfig::default()).get(&TITLES, "newest");
//! ```
//! a tenant's is made from a route of the catalog and in no other way,
//! ```compile_fail,E0451
//! # use insula_cache::TenantCache;
//! fn of_nobody<'a>(other: TenantCache<'a>) -> TenantCache<'a> {
//!     TenantCache { tenant: insula_core::TenantNo::new(1).unwrap(), ..other }
//! }
//! ```
//! ```compile_fail,E0308
//! # use insula_cache::{Cache, TenantCache};
//! fn of_number(cache: &Cache) -> TenantCache<'_> {
//!     cache.of(&insula_core::TenantNo::new(1).unwrap())
//! }
//! ```
//! and what an application writes of a key is a part of a name that it cannot make.
//! ```compile_fail,E0624
//! # use insula_cache::key::KeyBytes;
//! let key = KeyBytes::of("newest");
//! ```

mod cache;
#[cfg(test)]
mod cache_tests;
mod config;
mod error;
mod flight;
pub mod key;
mod lane;
mod near;
mod numbers;
mod resource;
mod second;
mod shard;
mod store;
mod tenant;
mod ticks;
mod tiers;
mod weight;

pub use cache::{Cache, Fill};
pub use config::{CacheConfig, SecondLevel};
pub use error::Error;
pub use key::Key;
pub use resource::Resource;
pub use tenant::{Found, TenantCache, Value};
pub use ticks::Ticks;
