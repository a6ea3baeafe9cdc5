//! When one tenant's requests are due. Pure arithmetic on instants.

use std::time::{Duration, Instant};

use crate::plan::Arrivals;
use crate::tenants::Rate;

/// The due times of one tenant on one worker, each given out once.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    end: Instant,
    pace: Pace,
}

#[derive(Debug)]
enum Pace {
    /// Slot `k` is due `k` steps after the start: computed, not added up, so that no error grows.
    Even { step: f64, next: f64 },
    /// The next one, in seconds after the start.
    Random { mean: f64, next: f64, seed: u64 },
    /// Always due.
    Closed,
}

impl Schedule {
    /// The share of worker `part` of `parts`, between `start` and `end`.
    pub(crate) fn new(rate: Rate, arrivals: Arrivals, start: Instant, end: Instant, part: usize, parts: usize) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a handful of workers")]
        let (part_no, parts_no) = (part as f64, parts as f64);
        let pace = match (rate, arrivals) {
            (Rate::Max, _) => Pace::Closed,
            // Interleaved: worker 1 of 2 has the odd slots of the whole.
            (Rate::PerSecond(rate), Arrivals::Even) => Pace::Even { step: parts_no / rate, next: part_no / parts_no },
            (Rate::PerSecond(rate), Arrivals::Poisson) => {
                let mut seed = 0x9e37_79b9_7f4a_7c15 ^ rate.to_bits() ^ ((part as u64) << 32);
                let mean = parts_no / rate;
                let next = exponential(&mut seed) * mean;
                Pace::Random { mean, next, seed }
            }
        };
        Self { start, end, pace }
    }

    /// Whether requests are due whenever a connection is free.
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.pace, Pace::Closed)
    }

    /// When the next one is due; `None` when there will be none before the end.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let due = match self.pace {
            Pace::Even { step, next } => self.start + Duration::from_secs_f64(step * next),
            Pace::Random { next, .. } => self.start + Duration::from_secs_f64(next),
            Pace::Closed => now.max(self.start),
        };
        (due < self.end).then_some(due)
    }

    /// Takes the next one if it is due by now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.due(now).filter(|due| *due <= now)?;
        match &mut self.pace {
            Pace::Even { next, .. } => *next += 1.0,
            Pace::Random { mean, next, seed } => *next += exponential(seed) * *mean,
            Pace::Closed => {}
        }
        Some(due)
    }
}

/// Exponentially distributed with mean 1. SplitMix64 (Steele, Lea, Flood 2014) is random enough for arrival times.
fn exponential(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let unit = ((z >> 11) + 1) as f64 / (1u64 << 53) as f64;
    -unit.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn all(mut schedule: Schedule, late: Instant) -> Vec<Instant> {
        std::iter::from_fn(|| schedule.take(late)).collect()
    }

    #[test]
    fn workers_share_the_slots_of_an_even_rate() {
        let start = Instant::now();
        let end = start + SECOND;
        let of = |part| all(Schedule::new(Rate::PerSecond(1000.0), Arrivals::Even, start, end, part, 2), end);
        let mut slots = [of(0), of(1)].concat();
        slots.sort();
        assert_eq!(slots.len(), 1000);
        assert!(slots.windows(2).all(|w| (w[1] - w[0]).abs_diff(Duration::from_millis(1)) < Duration::from_micros(1)));
    }

    #[test]
    fn random_arrivals_keep_the_rate() {
        let start = Instant::now();
        let end = start + 10 * SECOND;
        let slots = all(Schedule::new(Rate::PerSecond(1000.0), Arrivals::Poisson, start, end, 0, 1), end);
        assert!((9_500..10_500).contains(&slots.len()), "{}", slots.len());
        let near = slots.windows(2).filter(|w| w[1] - w[0] < Duration::from_micros(100)).count();
        // P(distance < a tenth of the mean) is 9.5%.
        assert!((800..1_100).contains(&near), "{near}");
    }

    #[test]
    fn nothing_is_due_early_or_after_the_end() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Rate::PerSecond(2.0), Arrivals::Even, start + SECOND, start + 2 * SECOND, 0, 1);
        assert_eq!(schedule.take(start), None);
        assert_eq!(schedule.take(start + 9 * SECOND), Some(start + SECOND));
        assert_eq!(schedule.take(start + 9 * SECOND), Some(start + SECOND * 3 / 2));
        assert_eq!(schedule.take(start + 9 * SECOND), None);
        assert_eq!(schedule.due(start), None);
    }
}
