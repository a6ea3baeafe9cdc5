//! What came of the requests: counts and latency histograms, for the whole and for the last moment.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::lane::lock;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With an answer that was read to its end.
    Answered(u16),
    /// Without one.
    Failed(Failure),
}

/// Why there was no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// No connection could be had.
    Connect,
    /// It broke off.
    Broken,
    /// It took longer than allowed.
    Timeout,
    /// It was due, and the run ended before a connection was free.
    Unsent,
}

impl Failure {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
            Self::Unsent => "unsent",
        }
    }
}

/// In microseconds.
pub(crate) type Latencies = Histogram<u64>;

/// What took longer is counted as this long: two minutes.
const LONGEST_US: u64 = 120_000_000;

#[allow(clippy::expect_used, reason = "the bounds are constants that the crate accepts: a test makes them")]
fn latencies(digits: u8) -> Latencies {
    Histogram::new_with_bounds(1, LONGEST_US, digits).expect("constant bounds")
}

/// One tenant's counts, of one worker or of all.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// From due to the end of the answer, of all but those refused for their number (429).
    pub(crate) latency: Latencies,
    /// The same, of 429 answers.
    pub(crate) refusal: Latencies,
    /// From sending: what a generator that waits for its answers would have seen.
    pub(crate) service: Latencies,
    /// From due to sending, where a free connection stood by.
    pub(crate) lag: Latencies,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) failures: BTreeMap<Failure, u64>,
    pub(crate) bytes_in: u64,
    pub(crate) reconnects: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latency: latencies(3),
            refusal: latencies(2),
            service: latencies(2),
            lag: latencies(2),
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            bytes_in: 0,
            reconnects: 0,
        }
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Tally {
    fn record(&mut self, outcome: Outcome, latency: Duration, service: Option<Duration>, lag: Option<Duration>) {
        let histogram = if outcome == Outcome::Answered(429) { &mut self.refusal } else { &mut self.latency };
        histogram.saturating_record(micros(latency));
        if let Some(service) = service {
            self.service.saturating_record(micros(service));
        }
        if let Some(lag) = lag {
            self.lag.saturating_record(micros(lag));
        }
        match outcome {
            Outcome::Answered(status) => *self.statuses.entry(status).or_default() += 1,
            Outcome::Failed(failure) => *self.failures.entry(failure).or_default() += 1,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // All were made with the same bounds.
        let _ = self.latency.add(&other.latency);
        let _ = self.refusal.add(&other.refusal);
        let _ = self.service.add(&other.service);
        let _ = self.lag.add(&other.lag);
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.bytes_in += other.bytes_in;
        self.reconnects += other.reconnects;
    }

    pub(crate) fn clear(&mut self) {
        self.latency.reset();
        self.refusal.reset();
        self.service.reset();
        self.lag.reset();
        self.statuses.clear();
        self.failures.clear();
        self.bytes_in = 0;
        self.reconnects = 0;
    }

    /// Requests that came to an end.
    pub(crate) fn requests(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.failures.values().sum::<u64>()
    }

    /// Those that were answered with 2xx or 3xx.
    pub(crate) fn served(&self) -> u64 {
        self.statuses.range(200..400).map(|(_, count)| count).sum()
    }

    pub(crate) fn throttled(&self) -> u64 {
        self.statuses.get(&429).copied().unwrap_or(0)
    }
}

/// A tally that one worker writes and the report reads now and then.
#[derive(Debug, Default)]
pub(crate) struct Counter(Mutex<Tally>);

impl Counter {
    pub(crate) fn record(
        &self,
        outcome: Outcome,
        latency: Duration,
        service: Option<Duration>,
        lag: Option<Duration>,
        bytes: u64,
    ) {
        let mut tally = lock(&self.0);
        tally.record(outcome, latency, service, lag);
        tally.bytes_in += bytes;
    }

    pub(crate) fn reconnected(&self) {
        lock(&self.0).reconnects += 1;
    }

    /// What came since the last time, added to `into`.
    pub(crate) fn take(&self, into: &mut Tally) {
        let mut tally = lock(&self.0);
        into.add(&tally);
        tally.clear();
    }
}
