//! One tenant's cache: the only way to a value.
//!
//! Always: a name holds the tenant that the cache was made for, so no call can ask for another's; in the scope of another tenant nothing is
//! remembered and nothing shown, and the security log says so.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use insula_core::{Plan, TenantId, TenantNo, scope};
use insula_telemetry::{Alarm, security_event};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::Inner;
use crate::flight::{Landed, Lead, Part, landed};
use crate::key::{Key, KeyBytes};
use crate::resource::Resource;
use crate::second::{BLIND, Fetched, Notice, Place, Second, Whose};
use crate::shard::{Entry, Held, Name};
use crate::store::{Kept, Standing};
use crate::weight;

/// A tenant's cache: whatever is asked of it is this tenant's. Cheap to make, for each request anew.
#[derive(Clone, Copy)]
pub struct TenantCache<'a> {
    inner: &'a Inner,
    tenant: TenantNo,
    id: TenantId,
    epoch: i64,
    plan: &'a Plan,
}

/// What can be cached: it is shared as it is, weighed and handed on as JSON.
pub trait Value: Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Value for V {}

/// What is remembered: a value, or that there is none.
pub type Found<V> = Option<Arc<V>>;

/// What a caller takes for an answer.
trait Shape<V>: Clone {
    fn read(held: &Held) -> Option<Self>;
    fn made(value: Option<V>) -> Option<Self>;
    fn value(&self) -> Option<&Arc<V>>;
}

/// A value and nothing else: that there is none is no answer.
impl<V: Value> Shape<V> for Arc<V> {
    #[inline]
    fn read(held: &Held) -> Option<Self> {
        // Of another type: two resources have one name. Neither gets the other's.
        Arc::clone(held.as_ref()?).downcast().ok()
    }

    fn made(value: Option<V>) -> Option<Self> {
        value.map(Self::new)
    }

    fn value(&self) -> Option<&Self> {
        Some(self)
    }
}

impl<V: Value> Shape<V> for Found<V> {
    #[inline]
    fn read(held: &Held) -> Option<Self> {
        match held {
            None => Some(None),
            Some(_) => Arc::read(held).map(Some),
        }
    }

    fn made(value: Option<V>) -> Option<Self> {
        Some(value.map(Arc::new))
    }

    fn value(&self) -> Option<&Arc<V>> {
        self.as_ref()
    }
}

impl fmt::Debug for TenantCache<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantCache").field("tenant", &self.id).finish_non_exhaustive()
    }
}

impl<'a> TenantCache<'a> {
    #[inline]
    pub(crate) fn new(inner: &'a Inner, (tenant, id, epoch): (TenantNo, TenantId, i64), plan: &'a Plan) -> Self {
        Self { inner, tenant, id, epoch, plan }
    }

    /// What this process remembers under that key; `Some(None)` when it remembers that there is nothing.
    #[inline]
    pub fn get<K: Key + ?Sized, V: Value>(self, resource: &Resource<K, V>, key: &K) -> Option<Found<V>> {
        let key = KeyBytes::of(key);
        if self.is_in_scope() { self.look(&self.inner.store.name(self.tenant, resource.id(), &key)) } else { None }
    }

    /// What is remembered under that key, or else what `load` brings, which is then remembered. However many ask at once, one of them loads. An
    /// error goes to all who wait for it, and is not remembered.
    ///
    /// # Errors
    /// What `load` returns.
    pub fn get_or_load<K, V, E, F, L>(
        self,
        resource: &Resource<K, V>,
        key: &K,
        load: F,
    ) -> impl Future<Output = Result<Arc<V>, Arc<E>>> + use<'a, K, V, E, F, L>
    where
        K: Key + ?Sized,
        V: Value,
        E: Send + Sync + 'static,
        F: FnOnce() -> L,
        L: Future<Output = Result<V, E>>,
    {
        let (resource, key) = (*resource, KeyBytes::of(key));
        async move { self.find(&resource, key, async || load().await.map(Arc::new)).await }
    }

    /// As [`TenantCache::get_or_load`], for what may not exist: that is remembered as well, for a shorter time.
    ///
    /// # Errors
    /// What `load` returns.
    pub fn find_or_load<K, V, E, F, L>(
        self,
        resource: &Resource<K, V>,
        key: &K,
        load: F,
    ) -> impl Future<Output = Result<Found<V>, Arc<E>>> + use<'a, K, V, E, F, L>
    where
        K: Key + ?Sized,
        V: Value,
        E: Send + Sync + 'static,
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>, E>>,
    {
        let (resource, key) = (*resource, KeyBytes::of(key));
        async move { self.find(&resource, key, async || Ok(load().await?.map(Arc::new))).await }
    }

    /// Forgets what is under that key. Whoever asks from now on in this process gets what is loaded from now on; other processes are told.
    /// Call it after the change is committed: what is loaded before that is the old.
    pub fn forget<K: Key + ?Sized, V>(self, resource: &Resource<K, V>, key: &K) {
        let key = KeyBytes::of(key);
        let name = self.inner.store.name(self.tenant, resource.id(), &key);
        let notice = || {
            let place = Place { tenant: self.whose(), epoch: self.epoch, resource: resource.name(), key: key.clone() };
            Notice::Key(place, resource.id())
        };
        self.tell(notice, || {
            // In this order: a load that does not see the mark has kept what the second step removes.
            self.inner.flights.forget(&name);
            self.inner.store.forget(&name);
        });
    }

    /// As [`TenantCache::forget`], for all keys of a resource, however many. Costs one addition.
    pub fn forget_all<K: Key + ?Sized, V>(self, resource: &Resource<K, V>) {
        let notice = || Notice::Resource(self.whose(), resource.id(), resource.name());
        self.tell(notice, || self.inner.store.forget_resource(self.tenant, resource.id()));
    }

    /// As [`TenantCache::forget`], for everything of the tenant. Costs a few additions.
    pub fn forget_everything(self) {
        self.tell(|| Notice::Tenant(self.whose()), || self.inner.store.forget_tenant(self.tenant));
    }

    /// Bytes that the tenant's entries weigh in this process.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.inner.store.memory().held_by(self.tenant)
    }

    #[inline]
    fn look<V: Value, S: Shape<V>>(&self, name: &Name<'_>) -> Option<S> {
        self.inner.store.get(name, self.epoch, &self.plan.tier.name, S::read)
    }

    async fn find<K, V, S, E>(
        &self,
        resource: &Resource<K, V>,
        key: KeyBytes,
        load: impl AsyncFnOnce() -> Result<S, E>,
    ) -> Result<S, Arc<E>>
    where
        K: Key + ?Sized,
        V: Value,
        S: Shape<V>,
        E: Send + Sync + 'static,
    {
        if !self.is_in_scope() {
            return load().await.map_err(Arc::new);
        }
        let name = self.inner.store.name(self.tenant, resource.id(), &key);
        loop {
            // Finds nothing of an earlier standing than the caller's.
            if let Some(found) = self.look(&name) {
                return Ok(found);
            }
            self.inner.store.stands(self.tenant, self.epoch);
            if let Some(second) = &self.inner.second {
                second.meet(self.whose());
            }
            let generation = self.inner.store.generation(self.tenant, resource.id());
            let wait = match self.inner.flights.join(&name, generation) {
                Part::Lead(lead) => return self.lead(resource, &name, generation, lead, load).await,
                Part::Wait(wait) => wait,
            };
            match landed(wait).await {
                Some(Landed::Value(held)) => match S::read(&held) {
                    Some(found) => return Ok(found),
                    None => break,
                },
                Some(Landed::Failed(error)) => match error.downcast() {
                    Ok(error) => return Err(error),
                    Err(_) => break,
                },
                Some(Landed::Abandoned) => {}
                // It takes too long, or waits for this one.
                None => break,
            }
        }
        load().await.map_err(Arc::new)
    }

    async fn lead<K, V, S, E>(
        &self,
        resource: &Resource<K, V>,
        name: &Name<'_>,
        generation: u32,
        lead: Lead<'_>,
        load: impl AsyncFnOnce() -> Result<S, E>,
    ) -> Result<S, Arc<E>>
    where
        K: Key + ?Sized,
        V: Value,
        S: Shape<V>,
        E: Send + Sync + 'static,
    {
        // Another load may have landed between the look and the lead.
        if let Some(found) = self.look::<V, S>(name) {
            lead.land(Landed::Value(held(&found)));
            return Ok(found);
        }
        let place = Place { tenant: self.whose(), epoch: self.epoch, resource: resource.name(), key: name.key.clone() };
        let mut seen = None;
        let second = self.second(resource);
        if let Some(second) = second {
            match second.fetch(&place).await {
                Fetched::Value(json, lives) => {
                    if let Some(found) = decoded::<V, S>(json) {
                        self.count("second");
                        self.keep(resource, name, generation, &lead, &found, lives);
                        lead.land(Landed::Value(held(&found)));
                        return Ok(found);
                    }
                }
                Fetched::Nothing(nothing) => seen = Some(nothing),
                Fetched::Away => {}
            }
        }
        match load().await {
            Ok(found) => {
                self.count("loaded");
                let span = self.span(resource, found.value().is_some());
                if let Some((second, seen)) = second.zip(seen)
                    && let Ok(json) = found.value().map(|value| serde_json::to_vec(&**value)).transpose()
                {
                    second.keep(place, seen, json, span, self.plan.limits.max_cache_bytes, &self.plan.tier.name);
                }
                self.keep(resource, name, generation, &lead, &found, span);
                lead.land(Landed::Value(held(&found)));
                Ok(found)
            }
            Err(error) => {
                self.count("failed");
                let error = Arc::new(error);
                lead.land(Landed::Failed(Arc::clone(&error) as Arc<dyn Any + Send + Sync>));
                Err(error)
            }
        }
    }

    fn keep<K: Key + ?Sized, V: Value, S: Shape<V>>(
        &self,
        resource: &Resource<K, V>,
        name: &Name<'_>,
        generation: u32,
        lead: &Lead<'_>,
        found: &S,
        lives: Duration,
    ) {
        let store = &self.inner.store;
        let weight = match found.value() {
            Some(value) => resource.scale().map_or_else(|| weight::measure(&**value), |scale| Some(scale(value))),
            None => Some(0),
        };
        let Some(weight) = weight else { return self.count("no_json") };
        let weight = weight::entry(name.key.heap(), weight);
        let span = self.span(resource, found.value().is_some()).min(lives);
        let span = if self.inner.blind.load(Ordering::SeqCst) { span.min(BLIND) } else { span };
        let expires = store.ticks.now().after(span);
        let tier = store.tiers.number(&self.plan.tier.name);
        let entry = Entry { name: *name, value: held(found), expires, generation, weight, tier };
        match store.keep(entry, self.standing()) {
            // Forgotten while it was kept: see `forget`.
            Kept::Yes if lead.is_outdated() => store.forget(name),
            Kept::Yes | Kept::Outdated => {}
            Kept::NoRoom => self.count("no_room"),
        }
    }

    /// For how long a value may be remembered.
    fn span<K: Key + ?Sized, V>(&self, resource: &Resource<K, V>, is_there: bool) -> Duration {
        resource.span(is_there).min(self.inner.config.bound(&self.plan.tier.name))
    }

    /// The second level, unless it is not to be asked, or may hold what is forgotten here.
    fn second<K: Key + ?Sized, V>(&self, resource: &Resource<K, V>) -> Option<&'a Arc<Second>> {
        let second = self.inner.second.as_ref().filter(|_| !resource.is_local())?;
        (self.inner.store.tenancy(self.tenant).untold.load(Ordering::SeqCst) == 0).then_some(second)
    }

    /// Forgets here, and has the others told. The debt is noted first: nobody who misses what was forgotten asks the second level for it.
    fn tell(&self, notice: impl FnOnce() -> Notice, forget: impl FnOnce()) {
        let Some(second) = &self.inner.second else { return forget() };
        self.inner.store.tenancy(self.tenant).untold.fetch_add(1, Ordering::SeqCst);
        forget();
        second.outbox.put(notice());
    }

    const fn whose(&self) -> Whose {
        Whose { no: self.tenant, id: self.id }
    }

    fn standing(&self) -> Standing {
        Standing { weight: self.plan.tier.weight, quota: self.plan.limits.max_cache_bytes }
    }

    fn count(&self, outcome: &'static str) {
        let tier = self.plan.tier.name.clone();
        metrics::counter!("insula_cache_loads_total", "tier" => tier, "outcome" => outcome).increment(1);
    }

    /// Inside a scope, work is for the scope's tenant and for no other.
    #[inline]
    fn is_in_scope(&self) -> bool {
        match scope::tenant() {
            None => true,
            Some((_, no)) if no == self.tenant => true,
            Some((bound, _)) => {
                let asked = self.id;
                security_event!(Alarm::TenantMismatch, %bound, %asked, "one tenant's cache in the scope of another");
                false
            }
        }
    }
}

fn decoded<V: Value, S: Shape<V>>(json: Option<Vec<u8>>) -> Option<S> {
    match json {
        None => S::made(None),
        Some(json) => S::made(Some(serde_json::from_slice(&json).ok()?)),
    }
}

fn held<V: Value, S: Shape<V>>(found: &S) -> Held {
    found.value().map(|value| Arc::clone(value) as Arc<dyn Any + Send + Sync>)
}
