//! Where processes meet to share limits: a Redis or Valkey server. One script a round, nothing on anybody's way.
//!
//! All keys carry one hash tag, so that a cluster keeps them together. Always: a server that is away, slow or empty costs its round and no
//! more; the connection is made anew in the background.

use std::fmt::Write as _;
use std::time::Duration;

use insula_core::TenantNo;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};

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
    keys: [String; 3],
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
}

type Answer = (u32, Vec<u32>, Vec<String>);

impl RedisExchange {
    /// Meets at `url` (`redis://[:password@]host:port/database`) under `namespace`: processes of one namespace share. Connects when it is first
    /// needed; must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// When `url` is none.
    pub fn new(url: &str, namespace: &str) -> Result<Self, RedisFault> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(PATIENCE)
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        let key = |name: &str| format!("{{insula:{namespace}}}:{name}");
        Ok(Self {
            connection,
            script: Script::new(include_str!("lease.lua")),
            id: uuid::Uuid::now_v7().simple().to_string(),
            keys: [key("peers"), key("hot"), key("pots")],
        })
    }
}

impl Exchange for RedisExchange {
    type Error = RedisFault;

    async fn round(&mut self, report: &Report) -> Result<Award, RedisFault> {
        let mut call = self.script.prepare_invoke();
        for key in &self.keys {
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
        let mut goodbye = redis::cmd("ZREM");
        goodbye.arg(&self.keys[0]).arg(&self.id);
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
