//! What came of a run, for programs. The JSON of `--json` and `--report`; `html` makes a page of it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::expect::Verdict;
use crate::plan::{Arrivals, Plan};
use crate::tally::{Latencies, Tally};

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// When it began, seconds since 1970.
    pub started_unix: u64,
    /// Where the requests went.
    pub addr: String,
    /// Seconds that count, without the warm-up.
    pub seconds: f64,
    /// Threads that sent.
    pub threads: usize,
    /// Whether arrivals were at even distances or at random.
    pub arrivals: String,
    /// The sender itself.
    pub generator: Generator,
    /// All tenants together.
    pub total: TenantReport,
    /// By tenant.
    pub tenants: Vec<TenantReport>,
    /// What was expected, and whether it came so.
    pub expectations: Vec<Verdict>,
}

/// Whether the generator kept up: a late sender makes latencies that the server is not to blame for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Generator {
    /// Cores in use, on average, warm-up included.
    pub cpu_cores: f64,
    /// From due to sending, where a free connection stood by: p99, microseconds.
    pub lag_p99_us: u64,
    /// The same, at most.
    pub lag_max_us: u64,
}

/// One tenant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TenantReport {
    /// As asked for.
    pub name: String,
    /// Rate asked for.
    pub target: String,
    /// Requests that were due in the time that counts.
    pub requests: u64,
    /// Answered with 2xx or 3xx.
    pub served: u64,
    /// All others.
    pub errors: u64,
    /// Of these, answered 429: too many.
    pub throttled: u64,
    /// Requests a second.
    pub rps: f64,
    /// Served a second.
    pub served_rps: f64,
    /// Bytes of answers' bodies.
    pub bytes_in: u64,
    /// Connections that were found closed before a request was sent on them.
    pub reconnects: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, by reason: `connect`, `broken`, `timeout`, `unsent`.
    pub failures: BTreeMap<String, u64>,
    /// From when a request was due to the end of its answer; without those answered 429.
    pub latency: Quantiles,
    /// From when it was sent. Far below `latency` means that requests waited for a free connection.
    pub service: Quantiles,
    /// `latency` of those answered 429.
    pub refusal: Quantiles,
    /// For plots: share of requests (0 to 1) and the latency that they kept below, microseconds.
    pub curve: Vec<(f64, u64)>,
    /// Second by second.
    pub moments: Vec<Moment>,
}

/// Latencies in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Quantiles {
    pub count: u64,
    pub min_us: u64,
    pub mean_us: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub p9999_us: u64,
    pub max_us: u64,
}

/// A second of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its end, seconds after the warm-up.
    pub second: f64,
    /// Requests that ended, a second.
    pub rps: f64,
    /// Of these, with 2xx or 3xx.
    pub served: f64,
    /// The others, in number.
    pub errors: u64,
    /// Of the requests that ended in it.
    pub p50_us: u64,
    /// Likewise.
    pub p99_us: u64,
    /// Likewise.
    pub max_us: u64,
}

/// The latency that this share kept below; 0 of nothing.
pub(crate) fn quantile(histogram: &Latencies, share: f64) -> u64 {
    if histogram.is_empty() { 0 } else { histogram.value_at_quantile(share) }
}

impl Quantiles {
    pub(crate) fn of(histogram: &Latencies) -> Self {
        let at = |share| quantile(histogram, share);
        Self {
            count: histogram.len(),
            min_us: if histogram.is_empty() { 0 } else { histogram.min() },
            mean_us: (histogram.mean() * 10.0).round() / 10.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: histogram.max(),
        }
    }
}

impl TenantReport {
    pub(crate) fn new(name: &str, target: String, tally: &Tally, length: Duration, moments: Vec<Moment>) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "requests of a run")]
        let per_second = |count: u64| (count as f64 / length.as_secs_f64().max(1e-9) * 100.0).round() / 100.0;
        let (requests, served) = (tally.requests(), tally.served());
        Self {
            name: name.to_owned(),
            target,
            requests,
            served,
            errors: requests - served,
            throttled: tally.throttled(),
            rps: per_second(requests),
            served_rps: per_second(served),
            bytes_in: tally.bytes_in,
            reconnects: tally.reconnects,
            statuses: tally.statuses.clone(),
            failures: tally.failures.iter().map(|(failure, count)| (failure.name().to_owned(), *count)).collect(),
            latency: Quantiles::of(&tally.latency),
            service: Quantiles::of(&tally.service),
            refusal: Quantiles::of(&tally.refusal),
            curve: curve(&tally.latency),
            moments,
        }
    }

    /// The latency that `share` (0 to 1) of the requests kept below, microseconds: read off the curve for shares that have no field.
    #[must_use]
    pub fn latency_at(&self, share: f64) -> u64 {
        self.curve.iter().find(|(at, _)| *at >= share - 1e-9).map_or(self.latency.max_us, |(_, us)| *us)
    }
}

/// Shares as an HDR plot has them: ever closer to 1, five points for each halving of the rest; and the percents.
fn curve(histogram: &Latencies) -> Vec<(f64, u64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let mut shares: Vec<f64> = (0..=100).map(|percent| f64::from(percent) / 100.0).collect();
    shares.extend((0..=100).map(|step| 1.0 - 0.1 * 2f64.powf(-f64::from(step) / 5.0)));
    shares.extend((990..1000).map(|permille| f64::from(permille) / 1000.0));
    shares.extend([0.9995, 0.9999, 0.99999]);
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    let points: Vec<_> = shares.into_iter().map(|share| (share, quantile(histogram, share))).collect();
    // Beyond the last request there is only the maximum again.
    #[allow(clippy::cast_precision_loss, reason = "requests of a run")]
    let finest = 1.0 - 0.5 / histogram.len() as f64;
    points.into_iter().filter(|(share, _)| *share <= finest || *share >= 1.0).collect()
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        begun_at: SystemTime,
        length: Duration,
        cpu: f64,
        all: &Tally,
        tenants: Vec<TenantReport>,
        total: TenantReport,
    ) -> Self {
        let wall = (plan.warmup + length).as_secs_f64().max(1e-9);
        Self {
            started_unix: begun_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            addr: plan.addr.to_string(),
            seconds: (length.as_secs_f64() * 1000.0).round() / 1000.0,
            threads: plan.threads,
            arrivals: match plan.arrivals {
                Arrivals::Even => "even".to_owned(),
                Arrivals::Poisson => "poisson".to_owned(),
            },
            generator: Generator {
                cpu_cores: (cpu / wall * 100.0).round() / 100.0,
                lag_p99_us: quantile(&all.lag, 0.99),
                lag_max_us: all.lag.max(),
            },
            total,
            tenants,
            expectations: Vec::new(),
        }
    }

    /// The tenant of this name; `all` is all of them.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<&TenantReport> {
        if name == "all" { Some(&self.total) } else { self.tenants.iter().find(|tenant| tenant.name == name) }
    }
}
