//! The second level: a Redis or Valkey server that the processes of a namespace share, and the bus on which they tell each other what is
//! forgotten.
//!
//! For: values that another process has loaded already, and for a change that one process makes to be seen by all. Not for: anything that a request
//! must wait for: a server that is away, slow or empty costs [`PATIENCE`] a few times and then nothing (a circuit), and the first level
//! goes on alone.
//!
//! Always: what was forgotten is not shown again. A value carries the marks of its tenant and resource and is worth nothing under others;
//! forgetting replaces a mark, or puts a sign in a value's place, which also stops those who loaded before that from keeping what
//! they have. Until the server has been told, the tenant does without it. A tenant's values are never more than its quota
//! (`keep.lua` counts), and each has an end.

mod bus;
mod notice;
mod outbox;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use insula_core::{TenantId, TenantNo};
use insula_planner::breaker::{Policy, Probed, Verdict};
use insula_planner::circuit::Circuit;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};
use tokio::sync::{OnceCell, Semaphore};
use uuid::Uuid;

use crate::config::SecondLevel;
use crate::error::Error;
use crate::key::KeyBytes;
use crate::ticks::millis;

pub(crate) use notice::Notice;

pub(crate) use bus::{BLIND, listen};
use notice::ID;
use outbox::Outbox;

/// An answer that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// For how long a sign keeps those away who loaded before something was forgotten.
const SIGN: Duration = Duration::from_secs(60);
/// A value that took longer to load is not kept here: by then a sign may have ended.
pub(crate) const LONGEST_LOAD: Duration = Duration::from_secs(30);
/// For how long a mark is there after its last use; longer than any value.
const MARK: Duration = Duration::from_secs(2 * 86_400);
/// No value is kept longer.
const LONGEST: Duration = Duration::from_secs(86_400);
/// Values that are on their way there at once; more are not sent.
const AT_ONCE: usize = 64;
const MARK_BYTES: usize = 16;

/// A tenant, as both levels know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Whose {
    /// In this process.
    pub(crate) no: TenantNo,
    /// On the server, and on the bus: another installation, or a catalog that was restored, gives a number to somebody else, and an id to nobody.
    pub(crate) id: TenantId,
}

/// A name in the second level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) tenant: Whose,
    /// Of the tenant's placement: what was kept under an earlier one is out of reach.
    pub(crate) epoch: i64,
    pub(crate) resource: &'static str,
    pub(crate) key: KeyBytes,
}

/// What was there before a load.
#[derive(Debug)]
pub(crate) struct Seen {
    mark_t: Vec<u8>,
    mark_r: Vec<u8>,
    value: Vec<u8>,
    at: Instant,
}

/// What the second level says.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// A value's JSON, or that there is none; and how long it lives.
    Value(Option<Vec<u8>>, Duration),
    /// Nothing that may be shown.
    Nothing(Seen),
    /// Do without.
    Away,
}

#[derive(Debug)]
pub(crate) struct Second {
    client: Client,
    connection: OnceCell<ConnectionManager>,
    namespace: String,
    /// This process, on the bus.
    id: [u8; ID],
    circuit: Circuit,
    began: Instant,
    keep: Script,
    on_their_way: Arc<Semaphore>,
    pub(crate) outbox: Outbox,
    /// Tenants for whom something was loaded here. Of others there is nothing to forget.
    known: RwLock<HashMap<TenantId, TenantNo>>,
}

impl SecondLevel {
    /// The server at `url` (`redis://[:PASSWORD@]HOST:PORT/DATABASE`): processes of one namespace share what is there.
    ///
    /// # Errors
    /// When `url` is none.
    pub fn new(url: &str, namespace: &str) -> Result<Self, Error> {
        let client = Client::open(url).map_err(|_| Error::Address)?;
        Ok(Self { client, namespace: namespace.to_owned() })
    }
}

impl Second {
    pub(crate) fn new(config: &SecondLevel) -> Self {
        Self {
            client: config.client.clone(),
            connection: OnceCell::new(),
            namespace: config.namespace.clone(),
            id: *Uuid::new_v4().as_bytes(),
            circuit: Circuit::new(Policy::default()),
            began: Instant::now(),
            keep: Script::new(include_str!("keep.lua")),
            on_their_way: Arc::new(Semaphore::new(AT_ONCE)),
            outbox: Outbox::default(),
            known: RwLock::default(),
        }
    }

    /// Something is about to be loaded for this tenant: from now on it matters what others forget of it.
    pub(crate) fn meet(&self, tenant: Whose) {
        if self.known(tenant.id) != Some(tenant) {
            self.known.write().unwrap_or_else(PoisonError::into_inner).insert(tenant.id, tenant.no);
        }
    }

    /// The tenant of an id, as this process knows it.
    fn known(&self, id: TenantId) -> Option<Whose> {
        let no = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).copied()?;
        Some(Whose { no, id })
    }

    /// What is there under that name.
    pub(crate) async fn fetch(&self, place: &Place) -> Fetched {
        let [mark_t, mark_r, value] = self.keys(place);
        let mut pipe = redis::pipe();
        pipe.cmd("MGET").arg(&mark_t).arg(&mark_r).arg(&value).cmd("PTTL").arg(&value);
        let at = Instant::now();
        let asked = self.ask(async |mut connection| pipe.query_async::<([Option<Vec<u8>>; 3], i64)>(&mut connection).await);
        let Some(([mark_t, mark_r, value], ttl)) = asked.await else { return Fetched::Away };
        let [mark_t, mark_r, value] = [mark_t, mark_r, value].map(Option::unwrap_or_default);
        let ttl = Duration::from_millis(u64::try_from(ttl).unwrap_or(0));
        match shown(&value, &mark_t, &mark_r) {
            Some((b'J', json)) if !ttl.is_zero() => Fetched::Value(Some(json.to_vec()), ttl),
            Some((b'N', [])) if !ttl.is_zero() => Fetched::Value(None, ttl),
            _ => Fetched::Nothing(Seen { mark_t, mark_r, value, at }),
        }
    }

    /// Keeps a value, in the background, if nothing of it was forgotten since it was looked for, and the quota has room.
    pub(crate) fn keep(self: &Arc<Self>, place: Place, seen: Seen, json: Option<Vec<u8>>, ttl: Duration, quota: u64, tier: &str) {
        let Ok(permit) = Arc::clone(&self.on_their_way).try_acquire_owned() else { return };
        if seen.at.elapsed() > LONGEST_LOAD {
            return;
        }
        let (second, tier) = (Arc::clone(self), tier.to_owned());
        tokio::spawn(async move {
            let outcome = second.send(&place, &seen, json, ttl.min(LONGEST), quota).await;
            let outcome = outcome.as_deref().unwrap_or("failed").to_owned();
            metrics::counter!("insula_cache_second_kept_total", "tier" => tier, "outcome" => outcome).increment(1);
            drop(permit);
        });
    }

    async fn send(&self, place: &Place, seen: &Seen, json: Option<Vec<u8>>, ttl: Duration, quota: u64) -> Option<String> {
        let value = json.map_or_else(|| b"N".to_vec(), |json| [b"J", json.as_slice()].concat());
        let mut call = self.keep.prepare_invoke();
        for key in self.keys(place).into_iter().chain(self.ledger(place.tenant)) {
            call.key(key);
        }
        call.arg(&seen.mark_t).arg(&seen.mark_r).arg(&seen.value).arg(mark().as_slice()).arg(mark().as_slice()).arg(value);
        call.arg(millis(ttl).max(1)).arg(quota).arg(millis(MARK));
        self.ask(async |mut connection| call.invoke_async::<String>(&mut connection).await).await
    }

    /// Tells the server, and by it the other processes, what is forgotten. Goes past the circuit: it tries until it succeeds.
    async fn tell(&self, notices: &[(Notice, u32)]) -> Result<(), RedisError> {
        let mut connection = self.connection().await?;
        let mut pipe = redis::pipe();
        for (notice, _) in notices {
            match notice {
                Notice::Tenant(tenant) => self.renew(&mut pipe, self.mark_of(*tenant)),
                Notice::Resource(tenant, _, name) => self.renew(&mut pipe, self.mark_of_resource(*tenant, name)),
                Notice::Key(place, _) => {
                    let mut sign = b"T".to_vec();
                    sign.extend_from_slice(&mark());
                    let [ends, sizes] = self.ledger(place.tenant);
                    // The script's text every time: a server that was restarted does not know it by its hash.
                    pipe.cmd("EVAL").arg(include_str!("forget.lua")).arg(3).arg(self.value_of(place)).arg(ends).arg(sizes);
                    pipe.arg(sign).arg(millis(SIGN)).ignore();
                }
            }
        }
        for (notice, _) in notices {
            pipe.cmd("PUBLISH").arg(self.channel()).arg(notice.encode(&self.id)).ignore();
        }
        pipe.query_async::<()>(&mut connection).await
    }

    fn renew(&self, pipe: &mut redis::Pipeline, key: Vec<u8>) {
        pipe.cmd("SET").arg(key).arg(mark().as_slice()).arg("PX").arg(millis(MARK)).ignore();
    }

    /// Asks the server, unless its circuit is open.
    async fn ask<T>(&self, question: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>) -> Option<T> {
        let verdict = self.circuit.ask(self.nanos());
        if matches!(verdict, Verdict::Refuse(_)) {
            return None;
        }
        // Given up before there is an answer, a probe must be handed back.
        let mut probe = Probe { second: self, out: verdict == Verdict::Probe };
        let answer = tokio::time::timeout(PATIENCE, async { question(self.connection().await?).await }).await;
        let chance = self.chance();
        match answer {
            Ok(Ok(answer)) => {
                self.circuit.sound(1);
                probe.tell(Probed::Sound, chance);
                Some(answer)
            }
            failed => {
                if !probe.tell(Probed::Failed, chance) && self.circuit.failed(self.nanos(), chance) {
                    let error =
                        failed.ok().and_then(Result::err).map_or_else(|| "too slow".to_owned(), |error| error.to_string());
                    tracing::warn!(error, "the cache's second level fails: going on without it");
                }
                metrics::counter!("insula_cache_second_failures_total").increment(1);
                None
            }
        }
    }

    async fn connection(&self) -> Result<ConnectionManager, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(250))
            .set_connection_timeout(Some(Duration::from_millis(250)))
            .set_response_timeout(Some(Duration::from_millis(500)));
        let made = self.connection.get_or_try_init(async || ConnectionManager::new_lazy_with_config(self.client.clone(), config));
        made.await.cloned()
    }

    /// One hash tag for a tenant: a cluster keeps its keys together.
    fn key(&self, tenant: Whose, part: &str) -> Vec<u8> {
        format!("insula:{{{}:{}}}:{part}", self.namespace, tenant.id).into_bytes()
    }

    fn mark_of(&self, tenant: Whose) -> Vec<u8> {
        self.key(tenant, "t")
    }

    fn mark_of_resource(&self, tenant: Whose, resource: &str) -> Vec<u8> {
        self.key(tenant, &format!("r:{resource}"))
    }

    fn value_of(&self, place: &Place) -> Vec<u8> {
        let Place { tenant, epoch, resource, key } = place;
        // The length before the name: no name and key can be read as another name and key.
        let mut name = self.key(*tenant, &format!("v:{epoch}:{}:{resource}:", resource.len()));
        name.extend_from_slice(key.as_slice());
        name
    }

    fn keys(&self, place: &Place) -> [Vec<u8>; 3] {
        [self.mark_of(place.tenant), self.mark_of_resource(place.tenant, place.resource), self.value_of(place)]
    }

    fn ledger(&self, tenant: Whose) -> [Vec<u8>; 2] {
        [self.key(tenant, "e"), self.key(tenant, "s")]
    }

    fn channel(&self) -> String {
        format!("insula:{}:forgotten", self.namespace)
    }

    fn nanos(&self) -> u64 {
        // 584 years fit.
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }

    fn chance(&self) -> u32 {
        // The clock's low bits are as good as dice here.
        self.nanos() as u32
    }
}

struct Probe<'a> {
    second: &'a Second,
    out: bool,
}

impl Probe<'_> {
    /// Answers whether this was one.
    fn tell(&mut self, outcome: Probed, chance: u32) -> bool {
        let was = std::mem::take(&mut self.out);
        if was && self.second.circuit.probed(self.second.nanos(), outcome, chance) {
            tracing::info!("the cache's second level is back");
        }
        was
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.tell(Probed::Unknown, 0);
    }
}

/// What no mark was before.
fn mark() -> [u8; MARK_BYTES] {
    *Uuid::new_v4().as_bytes()
}

/// Kind and rest of a value that carries the marks in force.
fn shown<'a>(value: &'a [u8], mark_t: &[u8], mark_r: &[u8]) -> Option<(u8, &'a [u8])> {
    let rest = value.strip_prefix(b"V")?;
    let (of_tenant, rest) = rest.split_first_chunk::<MARK_BYTES>()?;
    let (of_resource, rest) = rest.split_first_chunk::<MARK_BYTES>()?;
    let (kind, rest) = rest.split_first()?;
    (of_tenant.as_slice() == mark_t && of_resource.as_slice() == mark_r).then_some((*kind, rest))
}
