//! What is expected of a run: `light.p99<250ms,light.errors<1%`.
//!
//! ```text
//! list    = item { "," item }
//! item    = subject "." metric op value
//! subject = tenant | "all"
//! metric  = "p" number | "min" | "mean" | "max"          latency:      value is 250us, 250ms, 1.5s
//!         | "errors" | "throttled" | "unsent" | STATUS   count, share: value is 3 or 1%
//!         | "rps" | "served"                             a second:     value is a number, also with "rps"
//! op      = "<" | "<=" | ">" | ">=" | "="
//! ```
//! A tenant's name may hold dots (a host name): the metric is what follows the last one that is followed by a metric.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::report::{Report, TenantReport};
use crate::tenants::decimal;

/// One item.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// A tenant's name, or `all`.
    pub subject: String,
    /// What is looked at.
    pub metric: Metric,
    /// How it is compared.
    pub op: Op,
    /// With what.
    pub value: Value,
}

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// Latency that this percentage of the requests keep below.
    Percentile(f64),
    /// Shortest latency.
    Min,
    /// Average latency.
    Mean,
    /// Longest latency.
    Max,
    /// Requests that were not answered with 2xx or 3xx.
    Errors,
    /// Requests that were answered with 429.
    Throttled,
    /// Requests that were due and for which no connection came free.
    Unsent,
    /// Answers with this status.
    Status(u16),
    /// Requests a second.
    Rps,
    /// Requests a second that were answered with 2xx or 3xx.
    Served,
}

/// Comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Op {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

/// What it is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Microseconds.
    Micros(f64),
    /// Percent of the requests.
    Percent(f64),
    /// A number.
    Number(f64),
}

/// An expectation held against a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// As it was written.
    pub expectation: String,
    /// What came, in the same unit.
    pub actual: String,
    /// Whether it came as expected.
    pub holds: bool,
}

/// Reads a list.
///
/// # Errors
/// [`Error::Invalid`], quoting the item and saying what would be right.
pub fn parse(text: &str) -> Result<Vec<Expectation>, Error> {
    text.split(',').map(|item| item.trim().parse()).collect()
}

impl FromStr for Expectation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fault = |what: String| Error::Invalid(format!("cannot expect {text:?}: {what}"));
        let Some(at) = text.find(['<', '>', '=']) else {
            return Err(fault("it compares nothing: write TENANT.METRIC<VALUE, as light.p99<250ms".to_owned()));
        };
        let (left, right) = text.split_at(at);
        let (op, right) = Op::first(right).ok_or_else(|| fault("the comparison is none of < <= > >= =".to_owned()))?;
        let left = left.trim();
        let named = left.match_indices('.').find_map(|(dot, _)| {
            let metric: Metric = left[dot + 1..].parse().ok()?;
            Some((&left[..dot], metric))
        });
        let Some((subject, metric)) = named.filter(|(subject, _)| !subject.is_empty()) else {
            let metrics = "p99 (any percentile), min, mean, max, errors, throttled, unsent, a status as 503, rps, served";
            return Err(fault(format!("{left:?} is no TENANT.METRIC; metrics: {metrics}")));
        };
        let value = metric.value(right.trim()).map_err(fault)?;
        Ok(Self { subject: subject.to_owned(), metric, op, value })
    }
}

impl Op {
    fn first(text: &str) -> Option<(Self, &str)> {
        [("<=", Self::AtMost), (">=", Self::AtLeast), ("<", Self::Less), (">", Self::More), ("=", Self::Equal)]
            .into_iter()
            .find_map(|(sign, op)| Some((op, text.strip_prefix(sign)?)))
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::More => ">",
            Self::AtLeast => ">=",
            Self::Equal => "=",
        }
    }

    fn holds(self, actual: f64, wanted: f64) -> bool {
        match self {
            Self::Less => actual < wanted,
            Self::AtMost => actual <= wanted,
            Self::More => actual > wanted,
            Self::AtLeast => actual >= wanted,
            Self::Equal => (actual - wanted).abs() <= f64::EPSILON * wanted.abs().max(1.0),
        }
    }
}

impl FromStr for Metric {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "min" => Self::Min,
            "mean" => Self::Mean,
            "max" => Self::Max,
            "errors" => Self::Errors,
            "throttled" => Self::Throttled,
            "unsent" => Self::Unsent,
            "rps" => Self::Rps,
            "served" => Self::Served,
            _ if text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()) => {
                Self::Status(text.parse().ok().filter(|status| (100..1000).contains(status)).ok_or(())?)
            }
            _ => {
                let percent = text.strip_prefix('p').and_then(decimal).filter(|percent| (0.0..=100.0).contains(percent));
                Self::Percentile(percent.ok_or(())?)
            }
        })
    }
}

impl Metric {
    const fn is_latency(self) -> bool {
        matches!(self, Self::Percentile(_) | Self::Min | Self::Mean | Self::Max)
    }

    const fn is_rate(self) -> bool {
        matches!(self, Self::Rps | Self::Served)
    }

    /// Reads a value in a unit that suits.
    fn value(self, text: &str) -> Result<Value, String> {
        let units = [("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
        if self.is_latency() {
            let found = units.iter().find_map(|(unit, micros)| Some(decimal(text.strip_suffix(unit)?.trim_end())? * micros));
            return found.map(Value::Micros).ok_or(format!("{text:?} is no time: write 250us, 250ms or 1.5s"));
        }
        if self.is_rate() {
            let number = text.strip_suffix("rps").unwrap_or(text);
            return decimal(number).map(Value::Number).ok_or(format!("{text:?} is no rate: write 100 or 100rps"));
        }
        match text.strip_suffix('%') {
            Some(number) => decimal(number.trim_end()).filter(|percent| *percent <= 100.0).map(Value::Percent),
            None => decimal(text).filter(|count| count.fract() == 0.0).map(Value::Number),
        }
        .ok_or(format!("{text:?} is neither a count as 3 nor a share as 1%"))
    }

    /// Of this tenant, in the unit of the value.
    #[allow(clippy::cast_precision_loss, reason = "figures of a run")]
    fn of(self, tenant: &TenantReport, unit: Value) -> f64 {
        let amount = |count: u64| match unit {
            Value::Percent(_) => count as f64 * 100.0 / (tenant.requests.max(1)) as f64,
            _ => count as f64,
        };
        match self {
            Self::Percentile(percent) => tenant.latency_at(percent / 100.0) as f64,
            Self::Min => tenant.latency.min_us as f64,
            Self::Mean => tenant.latency.mean_us,
            Self::Max => tenant.latency.max_us as f64,
            Self::Errors => amount(tenant.errors),
            Self::Throttled => amount(tenant.throttled),
            Self::Unsent => amount(tenant.failures.get("unsent").copied().unwrap_or(0)),
            Self::Status(status) => amount(tenant.statuses.get(&status).copied().unwrap_or(0)),
            Self::Rps => tenant.rps,
            Self::Served => tenant.served_rps,
        }
    }
}

impl Expectation {
    /// Holds it against a report. A tenant without a single request disappoints every expectation: nothing was seen.
    #[must_use]
    pub fn judge(&self, report: &Report) -> Verdict {
        let expectation = self.to_string();
        let Some(tenant) = report.tenant(&self.subject).filter(|tenant| tenant.requests > 0) else {
            return Verdict { expectation, actual: "no requests".to_owned(), holds: false };
        };
        if self.metric.is_latency() && tenant.latency.count == 0 {
            return Verdict { expectation, actual: "all requests were refused (429)".to_owned(), holds: false };
        }
        let actual = self.metric.of(tenant, self.value);
        let (wanted, shown) = match self.value {
            Value::Micros(wanted) => (wanted, Value::Micros(actual)),
            Value::Percent(wanted) => (wanted, Value::Percent(actual)),
            Value::Number(wanted) => (wanted, Value::Number(actual)),
        };
        Verdict { expectation, actual: shown.to_string(), holds: self.op.holds(actual, wanted) }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}{}{}", self.subject, self.metric, self.op.sign(), self.value)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentile(percent) => write!(f, "p{percent}"),
            Self::Min => f.write_str("min"),
            Self::Mean => f.write_str("mean"),
            Self::Max => f.write_str("max"),
            Self::Errors => f.write_str("errors"),
            Self::Throttled => f.write_str("throttled"),
            Self::Unsent => f.write_str("unsent"),
            Self::Status(status) => write!(f, "{status}"),
            Self::Rps => f.write_str("rps"),
            Self::Served => f.write_str("served"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |number: f64| (number * 1e4).round() / 1e4;
        match self {
            Self::Micros(us) if *us >= 1e6 => write!(f, "{}s", short(us / 1e6)),
            Self::Micros(us) if *us >= 1e3 => write!(f, "{}ms", short(us / 1e3)),
            Self::Micros(us) => write!(f, "{}us", short(*us)),
            Self::Percent(percent) => write!(f, "{}%", short(*percent)),
            Self::Number(number) => write!(f, "{}", short(*number)),
        }
    }
}

#[cfg(test)]
#[path = "expect_tests.rs"]
mod tests;
