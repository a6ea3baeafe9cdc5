//! Time as the cache counts it: in steps of 8 ms, in 32 bits, so that an entry's end takes little of the line of memory that a hit reads. Tests move it
//! by hand.
//!
//! Always: it never goes back; two moments are compared by their difference, which is right as long as they are less than [`LONGEST`] apart. The machine's clock is the coarse one (a few milliseconds), which is read from memory without a system call: a
//! time to live is not known more exactly anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of a step.
const STEP: u64 = 8;
/// The longest that anything may be remembered: three months.
pub(crate) const LONGEST: Duration = Duration::from_secs(90 * 86_400);

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

    /// The present.
    #[inline]
    pub(crate) fn now(&self) -> Moment {
        let steps = match &self.0 {
            Source::Machine => {
                let time = clock_gettime(ClockId::MonotonicCoarse);
                // Counted from the machine's start: neither is negative.
                time.tv_sec.unsigned_abs() * (1_000 / STEP) + time.tv_nsec.unsigned_abs() / (STEP * 1_000_000)
            }
            Source::Hand(now) => now.load(Ordering::SeqCst) / STEP,
        };
        // The low half: see the top.
        Moment(steps as u32)
    }
}

/// A moment of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u32);

impl Moment {
    /// The moment after a span, at most [`LONGEST`], at least a step.
    pub(crate) fn after(self, span: Duration) -> Self {
        // At most 2^30.
        Self(self.0.wrapping_add((millis(span.min(LONGEST)) / STEP).max(1) as u32))
    }

    /// Whether it has come.
    #[inline]
    pub(crate) const fn is_over(self, now: Self) -> bool {
        self.0.wrapping_sub(now.0).cast_signed() <= 0
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_come_in_time_also_when_the_count_begins_anew() {
        for start in [0, u32::MAX - 2, u32::MAX / 2] {
            let now = Moment(start);
            let end = now.after(Duration::from_millis(80));
            assert!(!end.is_over(now) && !end.is_over(Moment(start.wrapping_add(9))));
            assert!(end.is_over(Moment(start.wrapping_add(10))) && end.is_over(Moment(start.wrapping_add(1_000_000))));
            assert!(!now.after(Duration::MAX).is_over(now) && !now.after(Duration::ZERO).is_over(now));
        }
    }
}
