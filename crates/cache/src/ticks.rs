//! Time as the cache counts it: milliseconds since a moment of this process. Tests move it by hand.
//!
//! Always: it never goes back. The machine's clock is the coarse one (a few milliseconds), which is read from memory without a system call: a
//! time to live is not known more exactly anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A clock that never goes back.
#[derive(Clone, Debug)]
pub struct Ticks(Source);

#[derive(Clone, Debug)]
enum Source {
    Machine,
    Hand(Arc<AtomicU64>),
}

impl Ticks {
    /// The machine's monotonic clock.
    #[must_use]
    pub const fn machine() -> Self {
        Self(Source::Machine)
    }

    /// A clock that stands still until [`Ticks::advance`].
    #[must_use]
    pub fn by_hand() -> Self {
        Self(Source::Hand(Arc::new(AtomicU64::new(1))))
    }

    /// Moves a clock that is moved by hand, and all its clones.
    pub fn advance(&self, by: Duration) {
        if let Source::Hand(now) = &self.0 {
            now.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// Milliseconds.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        match &self.0 {
            Source::Machine => {
                let time = clock_gettime(ClockId::MonotonicCoarse);
                // Counted from the machine's start: neither is negative.
                time.tv_sec.unsigned_abs() * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000
            }
            Source::Hand(now) => now.load(Ordering::SeqCst),
        }
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
