//! Sums over the last minutes and hours, in steps.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Between two steps.
pub(crate) const STEP: Duration = Duration::from_secs(10);

/// Windows by name, with their length in steps.
pub(crate) const WINDOWS: [(&str, usize); 4] = [("5m", 30), ("30m", 180), ("1h", 360), ("6h", 2160)];

const LONGEST: usize = 2160;

/// What is counted as it happens.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    bad: AtomicU64,
    slow: AtomicU64,
}

/// What came in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) bad: u64,
    pub(crate) slow: u64,
}

impl Tally {
    /// Counts a request. One that failed is bad, and not slow as well.
    pub fn count(&self, bad: bool, slow: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if bad {
            self.bad.fetch_add(1, Ordering::Relaxed);
        } else if slow {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn take(&self) -> Counts {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Counts { requests: take(&self.requests), bad: take(&self.bad), slow: take(&self.slow) }
    }
}

/// The steps of the longest window, newest first.
#[derive(Debug, Default)]
pub(crate) struct Ring(VecDeque<Counts>);

impl Ring {
    pub(crate) fn push(&mut self, counts: Counts) {
        self.0.truncate(LONGEST - 1);
        self.0.push_front(counts);
    }

    pub(crate) fn sum(&self, steps: usize) -> Counts {
        self.0.iter().take(steps).fold(Counts::default(), |sum, step| Counts {
            requests: sum.requests + step.requests,
            bad: sum.bad + step.bad,
            slow: sum.slow + step.slow,
        })
    }
}
