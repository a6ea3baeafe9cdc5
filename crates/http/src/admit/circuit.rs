//! A circuit breaker that many threads share: `planner::breaker` behind a flag that costs one read while all is well.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use insula_planner::breaker::{Breaker, Policy, Probed, Verdict};
use insula_planner::gcra::Nanos;

/// One circuit, to one dependency.
#[derive(Debug)]
pub struct Circuit {
    closed: AtomicBool,
    /// Sound outcomes that the breaker has not been told of: it need know them only when something fails.
    sound: AtomicU64,
    breaker: Mutex<Breaker>,
}

impl Circuit {
    /// Closed.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { closed: AtomicBool::new(true), sound: AtomicU64::new(0), breaker: Mutex::new(Breaker::new(policy)) }
    }

    /// May somebody ask the dependency now? After [`Verdict::Probe`] call [`Circuit::probed`] in any case.
    #[inline]
    pub fn ask(&self, now: Nanos) -> Verdict {
        if self.closed.load(Ordering::Acquire) { Verdict::Pass } else { self.lock().ask(now) }
    }

    /// Some sound answers.
    #[inline]
    pub fn sound(&self, n: u64) {
        self.sound.fetch_add(n, Ordering::Relaxed);
    }

    /// A failure of what passed. Answers whether it opened the circuit.
    pub fn failed(&self, now: Nanos) -> bool {
        let mut breaker = self.lock();
        let opened = breaker.record(now, self.sound.swap(0, Ordering::Relaxed), true, chance(now));
        if opened {
            self.closed.store(false, Ordering::Release);
        }
        opened
    }

    /// The outcome of a probe. Answers whether the circuit is closed now.
    pub fn probed(&self, now: Nanos, outcome: Probed) -> bool {
        let mut breaker = self.lock();
        let closed = breaker.probed(now, outcome, chance(now));
        if closed {
            self.closed.store(true, Ordering::Release);
        }
        closed
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Any number: the hasher's keys are random.
fn chance(now: Nanos) -> u32 {
    (RandomState::new().hash_one(now) >> 32) as u32
}
