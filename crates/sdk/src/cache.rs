//! What is remembered for a tenant: [`crate::Tenant::cache`] hands it out, so no code of an application names a tenant to have it.
//!
//! ```
//! # use insula::{Result, Tenant};
//! # use insula::cache::Resource;
//! const TITLES: Resource<(), Vec<String>> = Resource::new("titles");
//!
//! async fn titles(tenant: &Tenant) -> Result<Vec<String>> {
//!     let titles = tenant.cache().get_or_load(&TITLES, &(), async || {
//!         let mut tx = tenant.begin().await?;
//!         Ok(sqlx::query_scalar("SELECT title FROM notes").fetch_all(&mut tx).await?)
//!     });
//!     Ok(titles.await?.to_vec())
//! }
//! ```

use std::fmt;
use std::future::Future;
use std::sync::Arc;

pub use insula_cache::{CacheConfig, Found, Key, Resource, SecondLevel, Value, key};

use crate::error::{Error, Result};

/// A tenant's cache: whatever is asked of it is this tenant's.
#[derive(Clone, Copy)]
pub struct TenantCache<'a>(insula_cache::TenantCache<'a>);

impl fmt::Debug for TenantCache<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'a> TenantCache<'a> {
    pub(crate) const fn new(cache: insula_cache::TenantCache<'a>) -> Self {
        Self(cache)
    }

    /// What this process remembers under that key; `Some(None)` when it remembers that there is nothing.
    #[must_use]
    pub fn get<K: Key + ?Sized, V: Value>(self, resource: &Resource<K, V>, key: &K) -> Option<Found<V>> {
        self.0.get(resource, key)
    }

    /// What is remembered under that key, or else what `load` brings, which is then remembered. However many ask at once, one of them loads; its
    /// error goes to all who wait for it, and is not remembered. Look first whether the caller may see it: the cache does not ask.
    ///
    /// # Errors
    /// What `load` returns.
    pub fn get_or_load<K, V, F, L>(
        self,
        resource: &Resource<K, V>,
        key: &K,
        load: F,
    ) -> impl Future<Output = Result<Arc<V>>> + use<'a, K, V, F, L>
    where
        K: Key + ?Sized,
        V: Value,
        F: FnOnce() -> L,
        L: Future<Output = Result<V>>,
    {
        let loaded = self.0.get_or_load(resource, key, load);
        async { loaded.await.map_err(Error::shared) }
    }

    /// As [`TenantCache::get_or_load`], for what may not exist: that is remembered as well, for a shorter time.
    ///
    /// # Errors
    /// What `load` returns.
    pub fn find_or_load<K, V, F, L>(
        self,
        resource: &Resource<K, V>,
        key: &K,
        load: F,
    ) -> impl Future<Output = Result<Found<V>>> + use<'a, K, V, F, L>
    where
        K: Key + ?Sized,
        V: Value,
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>>>,
    {
        let loaded = self.0.find_or_load(resource, key, load);
        async { loaded.await.map_err(Error::shared) }
    }

    /// Forgets what is under that key: whoever asks from now on in this process gets what is loaded from now on, and other processes are told
    /// (with a second level; without, they show the old until its time is over). Call it after the change is committed.
    pub fn forget<K: Key + ?Sized, V>(self, resource: &Resource<K, V>, key: &K) {
        self.0.forget(resource, key);
    }

    /// As [`TenantCache::forget`], for all keys of a resource, however many.
    pub fn forget_all<K: Key + ?Sized, V>(self, resource: &Resource<K, V>) {
        self.0.forget_all(resource);
    }

    /// As [`TenantCache::forget`], for everything of the tenant.
    pub fn forget_everything(self) {
        self.0.forget_everything();
    }
}
