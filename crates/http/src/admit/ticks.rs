//! Time as admission counts it: nanoseconds since a moment of this process. Tests move it by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use insula_planner::gcra::Nanos;

/// A clock that never goes back.
#[derive(Clone, Debug)]
pub struct Ticks(Source);

#[derive(Clone, Debug)]
enum Source {
    Machine(Instant),
    Hand(Arc<AtomicU64>),
}

impl Ticks {
    /// The machine's monotonic clock.
    #[must_use]
    pub fn machine() -> Self {
        Self(Source::Machine(Instant::now()))
    }

    /// A clock that stands still until [`Ticks::advance`].
    #[must_use]
    pub fn by_hand() -> Self {
        Self(Source::Hand(Arc::new(AtomicU64::new(1))))
    }

    /// Moves a clock that is moved by hand, and all its clones.
    pub fn advance(&self, by: Duration) {
        if let Source::Hand(now) = &self.0 {
            now.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX / 2), Ordering::SeqCst);
        }
    }

    /// What [`Ticks::now`] was at a moment that somebody has looked at the machine's clock; now, by a clock that is moved by hand.
    #[must_use]
    #[inline]
    pub fn at(&self, moment: Instant) -> Nanos {
        match &self.0 {
            Source::Machine(start) => {
                u64::try_from(moment.saturating_duration_since(*start).as_nanos()).unwrap_or(u64::MAX / 2) + 1
            }
            Source::Hand(_) => self.now(),
        }
    }

    /// Now; 1 at the least.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Nanos {
        match &self.0 {
            Source::Machine(start) => {
                let passed = start.elapsed();
                // 584 years fit.
                passed.as_secs() * 1_000_000_000 + u64::from(passed.subsec_nanos()) + 1
            }
            Source::Hand(now) => now.load(Ordering::SeqCst),
        }
    }
}
