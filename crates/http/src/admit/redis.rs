//! Where processes meet to share limits: a Redis or Valkey server. One script a round, nothing on anybody's way.
//!
//! All keys carry one hash tag, so that a cluster keeps them together. Always: a server that is away, slow or empty costs its round and no
//! more; the connection is made anew in the background.

use std::fmt::Write as _;
use std::time::Duration;

use insula_core::TenantNo;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};
use uuid::Uuid;

use super::lease::{Award, Exchange, MeterKey, OPENING, POT, Report, SILENT};

/// For how long a process that is silent, and has not said goodbye, keeps its fraction. What it does not use, the others lease.
const SILENCE: Duration = Duration::from_secs(60);
/// For how long a meter stays hot after the last claim.
const HOT: Duration = Duration::from_secs(3);
/// A round that takes longer is given up.
const PATIENCE: Duration = Duration::from_millis(250);

/// Limits meet here.
pub struct RedisExchange {
    connection: ConnectionManager,
    script: Script,
    id: String,
    namespace: String,
    installation: Box<dyn Fn() -> Option<Uuid> + Send>,
    /// Of this installation.
    keys: Option<(Uuid, [String; 3])>,
}

impl std::fmt::Debug for RedisExchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisExchange").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why limits cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum RedisFault {
    /// The address is none, or the server says no.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// No answer in time.
    #[error("no answer within {} ms", PATIENCE.as_millis())]
    Slow,
    /// Tenants' numbers are an installation's: nothing is shared before it is known.
    #[error("the catalog has not said yet which installation this is")]
    Unknown,
}

type Answer = (u32, Vec<u32>, Vec<String>);

impl RedisExchange {
    /// Meets at `url` (`redis://[:password@]host:port/database`) under `namespace`: processes of one namespace and one installation share, which
    /// is asked for with each round. Connects when it is first needed; must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// When `url` is none.
    pub fn new(url: &str, namespace: &str, installation: impl Fn() -> Option<Uuid> + Send + 'static) -> Result<Self, RedisFault> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(PATIENCE)
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self {
            connection,
            script: Script::new(include_str!("lease.lua")),
            id: Uuid::now_v7().simple().to_string(),
            namespace: namespace.to_owned(),
            installation: Box::new(installation),
            keys: None,
        })
    }

    /// Two installations on one server have nothing to do with each other: a number is another tenant in each.
    fn keys(&mut self) -> Result<&[String; 3], RedisFault> {
        let installation = (self.installation)().ok_or(RedisFault::Unknown)?;
        if self.keys.as_ref().is_none_or(|(of, _)| *of != installation) {
            let key = |name: &str| format!("{{insula:{}:{}}}:{name}", self.namespace, installation.simple());
            self.keys = Some((installation, [key("peers"), key("hot"), key("pots")]));
        }
        self.keys.as_ref().map(|(_, keys)| keys).ok_or(RedisFault::Unknown)
    }
}

impl Exchange for RedisExchange {
    type Error = RedisFault;

    async fn round(&mut self, report: &Report) -> Result<Award, RedisFault> {
        let keys = self.keys()?.clone();
        let mut call = self.script.prepare_invoke();
        for key in keys {
            call.key(key);
        }
        call.arg(&self.id).arg(micros(SILENCE)).arg(micros(HOT)).arg(micros(POT)).arg(micros(SILENT)).arg(micros(OPENING));
        call.arg(report.spent.len());
        for (meter, units) in &report.spent {
            call.arg(text(meter)).arg(*units);
        }
        call.arg(report.claims.len());
        for claim in &report.claims {
            // Nanoseconds as microseconds with their fraction.
            let interval = format!("{}.{:03}", claim.interval / 1_000, claim.interval % 1_000);
            call.arg(text(&claim.meter)).arg(interval).arg(claim.burst).arg(claim.units);
        }
        let (parties, granted, hot): Answer = in_time(call.invoke_async(&mut self.connection)).await?;
        Ok(Award { parties, granted, hot: hot.iter().filter_map(|meter| meter_of(meter)).collect() })
    }

    async fn leave(&mut self) {
        let Some((_, [peers, ..])) = &self.keys else { return };
        let mut goodbye = redis::cmd("ZREM");
        goodbye.arg(peers).arg(&self.id);
        if let Err(error) = in_time(goodbye.query_async::<()>(&mut self.connection)).await {
            tracing::warn!(%error, "could not say goodbye: the others count this process for another minute");
        }
    }
}

async fn in_time<T>(asking: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisFault> {
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RedisFault::Slow),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// `7` or `7/export`.
fn text(meter: &MeterKey) -> String {
    let mut text = meter.tenant.get().to_string();
    if !meter.class.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, "/{}", meter.class);
    }
    text
}

fn meter_of(text: &str) -> Option<MeterKey> {
    let (tenant, class) = text.split_once('/').unwrap_or((text, ""));
    Some(MeterKey { tenant: TenantNo::new(tenant.parse().ok()?)?, class: class.to_owned() })
}
