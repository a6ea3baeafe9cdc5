//! A circuit breaker that many threads share: [`crate::breaker`] behind a flag that costs one read while all is well.
//!
//! Not for: knowing the time, or chance; both are handed in. Always: no answer depends on how threads take turns, but for which of them
//! gets to be the probe.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::breaker::{Breaker, Policy, Probed, Verdict};
use crate::gcra::Nanos;

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
    pub fn failed(&self, now: Nanos, chance: u32) -> bool {
        let mut breaker = self.lock();
        let opened = breaker.record(now, self.sound.swap(0, Ordering::Relaxed), true, chance);
        if opened {
            self.closed.store(false, Ordering::Release);
        }
        opened
    }

    /// The outcome of a probe. Answers whether the circuit is closed now.
    pub fn probed(&self, now: Nanos, outcome: Probed, chance: u32) -> bool {
        let mut breaker = self.lock();
        let closed = breaker.probed(now, outcome, chance);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads that fail, probe and succeed at random: one probe at a time, and it ends closed once all is well.
    #[test]
    fn threads_share_one_probe() {
        let circuit = Circuit::new(Policy { pause: 10, longest_pause: 20, ..Policy::default() });
        let (clock, probes) = (AtomicU64::new(1), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for t in 0..4u64 {
                let (circuit, clock, probes) = (&circuit, &clock, &probes);
                scope.spawn(move || {
                    for n in 0..20_000u64 {
                        let now = clock.fetch_add(1, Ordering::Relaxed);
                        match circuit.ask(now) {
                            Verdict::Pass if n < 15_000 && n % 3 == t % 3 => drop(circuit.failed(now, n as u32)),
                            Verdict::Pass => circuit.sound(1),
                            Verdict::Refuse(_) => {}
                            Verdict::Probe => {
                                assert_eq!(probes.fetch_add(1, Ordering::SeqCst), 0, "two probes at once");
                                probes.fetch_sub(1, Ordering::SeqCst);
                                let outcome = if n.is_multiple_of(2) { Probed::Sound } else { Probed::Failed };
                                circuit.probed(now, outcome, n as u32);
                            }
                        }
                    }
                });
            }
        });
        let mut now = clock.into_inner();
        for _ in 0..100 {
            now += 100;
            if circuit.ask(now) == Verdict::Probe {
                circuit.probed(now, Probed::Sound, 0);
            }
        }
        assert!(circuit.is_closed());
    }
}
