//! What this worker's places are at: how many are busy, how long jobs take. Each place writes down its own, so that none waits for another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// See the module.
pub(crate) struct Pulse {
    born: Instant,
    places: Box<[Place]>,
    seen: Mutex<Seen>,
}

/// Apart from its neighbours in the processor's cache.
#[derive(Default)]
#[repr(align(128))]
struct Place {
    /// When its job began, microseconds after `born` and one; 0: it is idle.
    since: AtomicU64,
    jobs: AtomicU64,
    busy_us: AtomicU64,
}

/// As it was when it was last looked at.
struct Seen {
    at: Instant,
    jobs: u64,
    busy_us: u64,
    mean: Duration,
}

/// How long jobs take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// Of late.
    pub(crate) mean: Duration,
    /// What the oldest that runs now has taken.
    pub(crate) longest: Duration,
}

/// The mean is that of a span at least this long.
const SPAN: Duration = Duration::from_secs(5);

impl Pulse {
    pub(crate) fn new(places: usize) -> Self {
        let born = Instant::now();
        let seen = Mutex::new(Seen { at: born, jobs: 0, busy_us: 0, mean: Duration::ZERO });
        Self { born, places: (0..places.max(1)).map(|_| Place::default()).collect(), seen }
    }

    pub(crate) fn places(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn begin(&self, place: usize) {
        if let Some(place) = self.places.get(place) {
            place.since.store(micros(self.born.elapsed()) + 1, Ordering::Relaxed);
        }
    }

    /// The job at a place is over; one that went back was none.
    pub(crate) fn end(&self, place: usize, ran: bool) {
        let Some(place) = self.places.get(place) else { return };
        let since = place.since.swap(0, Ordering::Relaxed);
        if ran && since > 0 {
            place.jobs.fetch_add(1, Ordering::Relaxed);
            place.busy_us.fetch_add((micros(self.born.elapsed()) + 1).saturating_sub(since), Ordering::Relaxed);
        }
    }

    /// Places that have a job.
    pub(crate) fn busy(&self) -> usize {
        self.places.iter().filter(|place| place.since.load(Ordering::Relaxed) > 0).count()
    }

    pub(crate) fn costs(&self) -> Costs {
        let now = micros(self.born.elapsed()) + 1;
        let sum = |of: fn(&Place) -> &AtomicU64| self.places.iter().map(|place| of(place).load(Ordering::Relaxed)).sum::<u64>();
        let (jobs, busy_us) = (sum(|place| &place.jobs), sum(|place| &place.busy_us));
        let oldest = self.places.iter().map(|place| place.since.load(Ordering::Relaxed)).filter(|since| *since > 0).min();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs > seen.jobs && (seen.at.elapsed() >= SPAN || seen.mean.is_zero()) {
            seen.mean = Duration::from_micros((busy_us - seen.busy_us) / (jobs - seen.jobs));
            (seen.at, seen.jobs, seen.busy_us) = (Instant::now(), jobs, busy_us);
        }
        Costs { mean: seen.mean, longest: Duration::from_micros(oldest.map_or(0, |since| now.saturating_sub(since))) }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_what_ran() {
        let pulse = Pulse::new(2);
        pulse.begin(0);
        pulse.begin(1);
        assert_eq!((pulse.busy(), pulse.costs().mean), (2, Duration::ZERO));
        while pulse.costs().longest < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        pulse.end(0, true);
        pulse.end(1, false);
        let costs = pulse.costs();
        assert_eq!(pulse.busy(), 0);
        assert!(costs.mean >= Duration::from_millis(2) && costs.longest.is_zero(), "{costs:?}");
        // A place that there is not is nobody's.
        pulse.begin(7);
        pulse.end(7, true);
    }
}
