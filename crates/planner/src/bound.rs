//! How long a tenant with work may wait for its next start, as start-time fair queueing promises it: what starvation is measured against.
//!
//! With W places, whoever had no work waits at most the sum of one job of each lane with work, divided by W, the rest of one that runs, and what
//! was taken ahead (docs/guides/jobs.md). Whoever goes on having work waits between two starts as well for what heavier lanes start in that
//! time: their weights by its own.

use std::time::Duration;

/// What a worker sees of one queue.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Lanes that have work and may be taken from.
    pub lanes: u64,
    /// The greatest weight among them.
    pub heaviest: u32,
    /// What a job takes, on average.
    pub mean: Duration,
    /// How long the job has run that runs for longest.
    pub longest: Duration,
    /// Jobs at work at once.
    pub places: usize,
    /// Of what was taken ahead.
    pub ahead: Duration,
}

/// A longer job than this is no excuse: if all places have such, there are too few.
const LONGEST: Duration = Duration::from_secs(60);

/// The longest wait of a lane of this weight.
#[must_use]
pub fn bound(load: &Load, weight: u32) -> Duration {
    let rounds = 1.0 + f64::from(load.heaviest.max(1)) / f64::from(weight.max(1));
    #[allow(clippy::cast_precision_loss, reason = "a bound that is a billionth off")]
    let jobs = load.lanes as f64 * rounds / load.places.max(1) as f64;
    let others = Duration::try_from_secs_f64(load.mean.as_secs_f64() * jobs).unwrap_or(Duration::MAX);
    others.saturating_add(load.longest.min(LONGEST)).saturating_add(load.ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        lanes: 100,
        heaviest: 8,
        mean: Duration::from_millis(20),
        longest: Duration::from_millis(300),
        places: 10,
        ahead: Duration::from_millis(40),
    };

    #[test]
    fn the_bound_is_the_promise() {
        // A hundred lanes, a job of 20 ms each, ten places: 200 ms; twice, for those that go on at the greatest weight.
        assert_eq!(bound(&LOAD, 8), Duration::from_millis(400 + 340));
        assert_eq!(bound(&LOAD, 1), Duration::from_millis(1_800 + 340));
        assert_eq!(bound(&Load { longest: Duration::from_secs(3_600), ..LOAD }, 8), Duration::from_millis(400 + 60_040));
    }

    #[test]
    fn nothing_overflows() {
        let wild = Load {
            lanes: u64::MAX,
            heaviest: u32::MAX,
            mean: Duration::MAX,
            longest: Duration::MAX,
            places: 0,
            ahead: Duration::MAX,
        };
        assert_eq!(bound(&wild, 0), Duration::MAX);
        let none =
            Load { lanes: 0, heaviest: 0, mean: Duration::ZERO, longest: Duration::ZERO, places: 0, ahead: Duration::ZERO };
        assert_eq!(bound(&none, 1), Duration::ZERO);
    }
}
