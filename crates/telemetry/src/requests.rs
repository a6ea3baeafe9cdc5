//! What a request leaves when it is over: a log line, metrics, usage, and a mark in its objectives.
//!
//! For: the SDK's layer and the gateway, who both call [`crate::Senses::finished`]. Always: no lock but the log buffer's own, no system
//! call, no wait; labels are tier, cell and class of route, never a tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use insula_core::TenantNo;
use metrics::{Counter, Histogram};

use crate::slo::{Slo, Tally};

/// Combinations of tier, cell and class that are told apart; what comes after that is counted as `other`.
pub const MOST_SERIES: usize = 200;

/// Whose a request was.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The tenant's number.
    pub no: TenantNo,
    /// Its slug.
    pub slug: &'a str,
    /// Its plan's tier.
    pub tier: &'a str,
    /// Where it lives.
    pub cell: &'a str,
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// `None` when it was nobody's: refused before it had a tenant, or for the host side.
    pub who: Option<Who<'a>>,
    /// Who asked, when that is known.
    pub principal: Option<&'a str>,
    /// As in `x-request-id`.
    pub request_id: &'a str,
    /// The trace that it is part of (W3C: 32 hex digits).
    pub trace_id: Option<&'a str>,
    /// As in the request line.
    pub method: &'a str,
    /// Without the query: people search for private things.
    pub path: &'a str,
    /// The class of its route: `default`, or one of those that plans limit.
    pub class: &'a str,
    /// The answer's; `None` when the client went away before there was one.
    pub status: Option<u16>,
    /// Whether the answer was delivered to its end.
    pub whole: bool,
    /// To the head of the answer.
    pub head: Duration,
    /// To its end.
    pub total: Duration,
    /// Of the request's body.
    pub bytes_in: u64,
    /// Of the answer's body.
    pub bytes_out: u64,
    /// CPU time that it took here.
    pub cpu: Duration,
}

/// What a request came to, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// 1xx to 3xx.
    Ok,
    /// 4xx, but 429.
    Refused,
    /// 429.
    Throttled,
    /// 5xx.
    Failed,
    /// The client went away, or the answer broke off.
    Cut,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Refused, Self::Throttled, Self::Failed, Self::Cut];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
            Self::Cut => "cut",
        }
    }
}

impl Finished<'_> {
    /// What it came to.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        match self.status {
            Some(429) => Ending::Throttled,
            Some(500..) => Ending::Failed,
            None => Ending::Cut,
            Some(_) if !self.whole => Ending::Cut,
            Some(400..) => Ending::Refused,
            Some(_) => Ending::Ok,
        }
    }
}

/// The metrics of one combination.
pub(crate) struct Series {
    labels: [Box<str>; 3],
    endings: [Counter; Ending::ALL.len()],
    seconds: Histogram,
    tally: Option<Arc<Tally>>,
    slow: Duration,
}

impl Series {
    fn new(slo: &Slo, [tier, cell, class]: [&str; 3]) -> Self {
        let text = |label: &str| label.to_owned();
        let ending = |ending: Ending| metrics::counter!("insula_requests_total", "tier" => text(tier), "cell" => text(cell), "class" => text(class), "ending" => ending.name());
        Self {
            labels: [tier, cell, class].map(Box::from),
            endings: Ending::ALL.map(ending),
            seconds: metrics::histogram!("insula_request_seconds", "tier" => text(tier), "cell" => text(cell), "class" => text(class)),
            tally: slo.tier(tier),
            slow: slo.slow(tier),
        }
    }

    pub(crate) fn count(&self, ending: Ending, head: Duration) {
        self.endings[ending as usize].increment(1);
        self.seconds.record(head.as_secs_f64());
        // Who leaves is no fault of ours, nor is what is refused.
        if let Some(tally) = self.tally.as_ref().filter(|_| ending != Ending::Cut) {
            tally.count(ending == Ending::Failed, head > self.slow);
        }
    }
}

type Table = HashMap<u64, Arc<Series>>;

/// All combinations so far: read without a lock, copied to grow.
pub(crate) struct AllSeries {
    hasher: foldhash::fast::FixedState,
    table: ArcSwap<Table>,
    growing: Mutex<()>,
}

impl Default for AllSeries {
    fn default() -> Self {
        Self { hasher: foldhash::fast::FixedState::default(), table: ArcSwap::default(), growing: Mutex::new(()) }
    }
}

impl AllSeries {
    /// Counts a request in its combination.
    pub(crate) fn count(&self, slo: &Slo, who: &Who<'_>, class: &str, ending: Ending, head: Duration) {
        let labels = [who.tier, who.cell, class];
        let key = self.key(labels);
        let table = self.table.load();
        match table.get(&key).filter(|series| series.labels.iter().zip(labels).all(|(own, label)| **own == *label)) {
            Some(series) => series.count(ending, head),
            None => self.grow(slo, labels).count(ending, head),
        }
    }

    fn key(&self, labels: [&str; 3]) -> u64 {
        use std::hash::BuildHasher as _;
        self.hasher.hash_one(labels)
    }

    fn grow(&self, slo: &Slo, labels: [&str; 3]) -> Arc<Series> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.load_full();
        let labels = if table.len() < MOST_SERIES { labels } else { ["other"; 3] };
        let key = self.key(labels);
        if let Some(there) = table.get(&key) {
            return there.clone();
        }
        let series = Arc::new(Series::new(slo, labels));
        let mut grown = Table::clone(&table);
        grown.insert(key, series.clone());
        self.table.store(Arc::new(grown));
        series
    }
}
