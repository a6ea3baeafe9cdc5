//! A kind of thing that is cached: its name, the types of its keys and values, how old it may be.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::key::Key;

/// How old a value may be unless its resource says otherwise.
const TTL: Duration = Duration::from_secs(60);
/// For how long it is remembered that something does not exist.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// A kind of cached thing, as a constant of the application. It has no way to a value by itself: only a tenant's cache has.
///
/// ```
/// # use insula_cache::Resource;
/// # use std::time::Duration;
/// const TITLES: Resource<str, Vec<String>> = Resource::new("titles").ttl(Duration::from_secs(30));
/// ```
///
/// The name is the same in every process that shares a second level. Values that change their shape take another name (`titles.2`), so that old
/// and new processes do not read each other's.
pub struct Resource<K: ?Sized, V> {
    name: &'static str,
    id: u64,
    ttl: Duration,
    negative_ttl: Duration,
    weigh: Option<fn(&V) -> usize>,
    local: bool,
    types: PhantomData<fn(&K) -> V>,
}

impl<K: Key + ?Sized, V> Resource<K, V> {
    /// A resource of that name; values live for a minute, or as much shorter as the tenant's tier says.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            id: fnv(name.as_bytes()),
            ttl: TTL,
            negative_ttl: NEGATIVE_TTL,
            weigh: None,
            local: false,
            types: PhantomData,
        }
    }

    /// How old a value may be; the tier's bound is kept besides.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// For how long it is remembered that something does not exist.
    #[must_use]
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// Bytes of a value in memory, when they are far from those of its JSON, which is measured otherwise.
    #[must_use]
    pub const fn weighed_by(mut self, weigh: fn(&V) -> usize) -> Self {
        self.weigh = Some(weigh);
        self
    }

    /// Never in the second level: for what is quicker made than fetched, or must not leave the process.
    #[must_use]
    pub const fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn is_local(&self) -> bool {
        self.local
    }

    pub(crate) const fn span(&self, is_there: bool) -> Duration {
        if is_there { self.ttl } else { self.negative_ttl }
    }

    pub(crate) const fn scale(&self) -> Option<fn(&V) -> usize> {
        self.weigh
    }
}

impl<K: ?Sized, V> Clone for Resource<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: ?Sized, V> Copy for Resource<K, V> {}

impl<K: ?Sized, V> fmt::Debug for Resource<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("name", &self.name).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// FNV-1a (Fowler, Noll, Vo), 64 bits: computed when the application is compiled.
const fn fnv(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}
