//! Whether something that keeps failing is worth asking: the circuit breaker (Nygard, "Release It!", 2007) as a state machine.
//!
//! For: one dependency of one tenant or of one cell. Not for: what counts as a failure, or keeping time. Always: closed, everything passes;
//! open, nothing does until the pause is over; half-open, only so many probes at once as the policy says. Pauses double with
//! each trip in a row and are jittered, so that processes that saw the same failure do not come back together.

use crate::gcra::Nanos;

/// When to open, and how to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// This many failures in a row open it.
    pub in_a_row: u32,
    /// So does this share of failures in a window, in percent …
    pub percent: u32,
    /// … if there were this many requests in it.
    pub volume: u32,
    /// The window's length.
    pub window: Nanos,
    /// The first pause.
    pub pause: Nanos,
    /// The longest pause; a breaker closed for so long has forgotten its earlier trips.
    pub longest_pause: Nanos,
    /// Probes at once when half-open, and successes of them that close it.
    pub probes: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            in_a_row: 5,
            percent: 50,
            volume: 20,
            window: 10_000_000_000,
            pause: 250_000_000,
            longest_pause: 15_000_000_000,
            probes: 1,
        }
    }
}

/// The answer to whoever wants to ask the dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on; report the outcome by [`Breaker::record`].
    Pass,
    /// Go on as a probe; report by [`Breaker::probed`], in any case.
    Probe,
    /// Do not ask; it may be worth it after this many nanoseconds.
    Refuse(Nanos),
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It answered.
    Sound,
    /// It failed.
    Failed,
    /// Nobody knows: given up before there was an answer.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Nanos },
    HalfOpen { out: u32, sound: u32 },
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    sound: u64,
    failed: u64,
}

/// One circuit.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    policy: Policy,
    state: State,
    in_a_row: u32,
    /// The window at hand and the one before it.
    counts: [Counts; 2],
    window_began: Nanos,
    /// Trips without a long quiet time between them.
    trips: u32,
    closed_at: Nanos,
}

impl Breaker {
    /// Closed.
    #[must_use]
    pub const fn new(policy: Policy) -> Self {
        let none = Counts { sound: 0, failed: 0 };
        Self { policy, state: State::Closed, in_a_row: 0, counts: [none; 2], window_began: 0, trips: 0, closed_at: 0 }
    }

    /// May somebody ask now?
    pub fn ask(&mut self, now: Nanos) -> Verdict {
        match &mut self.state {
            State::Closed => Verdict::Pass,
            State::Open { until } if now < *until => Verdict::Refuse(*until - now),
            State::Open { .. } => {
                self.state = State::HalfOpen { out: 1, sound: 0 };
                Verdict::Probe
            }
            State::HalfOpen { out, sound } if *out + *sound < self.policy.probes.max(1) => {
                *out += 1;
                Verdict::Probe
            }
            // The probe that is out will tell; a short pause is a fair guess.
            State::HalfOpen { .. } => Verdict::Refuse(self.policy.pause),
        }
    }

    /// Outcomes of what passed while closed: some sound ones (they may be handed in together, late) and perhaps a failure, the
    /// last of them. `chance` is any random number. Answers whether this opened the circuit.
    pub fn record(&mut self, now: Nanos, sound: u64, failed: bool, chance: u32) -> bool {
        if self.state != State::Closed {
            // A late answer from before: the probes decide now.
            return false;
        }
        self.turn(now);
        self.counts[0].sound += sound;
        if sound > 0 {
            self.in_a_row = 0;
        }
        if !failed {
            return false;
        }
        self.counts[0].failed += 1;
        self.in_a_row = self.in_a_row.saturating_add(1);
        let [a, b] = self.counts;
        let (all, bad) = (a.sound + a.failed + b.sound + b.failed, a.failed + b.failed);
        let often = all >= u64::from(self.policy.volume.max(1)) && bad * 100 >= all * u64::from(self.policy.percent);
        if !often && self.in_a_row < self.policy.in_a_row.max(1) {
            return false;
        }
        if now.saturating_sub(self.closed_at) > self.policy.longest_pause {
            self.trips = 0;
        }
        self.open(now, chance);
        true
    }

    /// The outcome of a probe. Answers whether the circuit is closed now.
    pub fn probed(&mut self, now: Nanos, outcome: Probed, chance: u32) -> bool {
        let State::HalfOpen { out, sound } = &mut self.state else { return self.state == State::Closed };
        *out = out.saturating_sub(1);
        match outcome {
            Probed::Unknown => false,
            Probed::Failed => {
                self.open(now, chance);
                false
            }
            Probed::Sound => {
                *sound += 1;
                let closed = *sound >= self.policy.probes.max(1);
                if closed {
                    *self = Self { trips: self.trips, closed_at: now, window_began: now, ..Self::new(self.policy) };
                }
                closed
            }
        }
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Until when nothing passes; `None` when closed or half-open.
    #[must_use]
    pub const fn open_until(&self) -> Option<Nanos> {
        match self.state {
            State::Open { until } => Some(until),
            _ => None,
        }
    }

    fn open(&mut self, now: Nanos, chance: u32) {
        let pause = self.policy.pause.saturating_mul(1 << self.trips.min(20)).min(self.policy.longest_pause);
        // Between half the pause and all of it ("equal jitter", Brooker 2015).
        let jitter = u64::try_from(u128::from(pause / 2) * u128::from(chance) / u128::from(u32::MAX)).unwrap_or(0);
        self.state = State::Open { until: now + pause - jitter };
        self.trips = self.trips.saturating_add(1);
        self.in_a_row = 0;
        self.counts = [Counts::default(); 2];
    }

    fn turn(&mut self, now: Nanos) {
        let windows = now.saturating_sub(self.window_began) / self.policy.window.max(1);
        if windows > 0 {
            let before = if windows == 1 { self.counts[0] } else { Counts::default() };
            self.counts = [Counts::default(), before];
            self.window_began += windows * self.policy.window.max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn failures_in_a_row_open_it_and_a_sound_probe_closes_it() {
        let policy = Policy::default();
        let mut breaker = Breaker::new(policy);
        for n in 1..=5 {
            assert_eq!(breaker.ask(n), Verdict::Pass);
            assert_eq!(breaker.record(n, 0, true, 0), n == 5);
        }
        assert_eq!(breaker.ask(5), Verdict::Refuse(250 * MS));
        let later = 5 + 250 * MS;
        assert_eq!(breaker.ask(later), Verdict::Probe);
        // One probe at a time.
        assert!(matches!(breaker.ask(later), Verdict::Refuse(_)));
        assert!(!breaker.probed(later, Probed::Failed, 0));
        // The pause has doubled.
        assert_eq!(breaker.ask(later), Verdict::Refuse(500 * MS));
        let later = later + 500 * MS;
        assert_eq!(breaker.ask(later), Verdict::Probe);
        // A probe that was given up makes room for the next.
        assert!(!breaker.probed(later, Probed::Unknown, 0));
        assert_eq!(breaker.ask(later), Verdict::Probe);
        assert!(breaker.probed(later, Probed::Sound, 0));
        assert_eq!(breaker.ask(later), Verdict::Pass);
    }

    #[test]
    fn a_share_of_failures_opens_it_and_few_do_not() {
        let mut breaker = Breaker::new(Policy::default());
        let opened = (0..100u64).position(|n| breaker.record(n, 1, n % 2 == 0, 0));
        // Half of what is counted, once there is enough of it... one sound for each, a failure for every other: 33%.
        assert_eq!(opened, None);
        let opened = (0..100u64).position(|n| breaker.record(10_000 * MS * 3 + n, 1, true, 0));
        assert_eq!(opened, Some(9), "20 outcomes, half of them failures");
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut breaker = Breaker::new(Policy { in_a_row: 100, ..Policy::default() });
        for n in 0..18 {
            assert!(!breaker.record(n, 0, true, 0));
        }
        assert!(!breaker.record(25_000 * MS, 0, true, 0));
        assert!(!breaker.record(25_000 * MS, 0, true, 0), "only two in the windows that count");
    }

    proptest! {
        /// Never more probes out than the policy allows; nothing passes while the pause lasts; it never stays shut for good.
        #[test]
        fn it_keeps_its_promises(steps in proptest::collection::vec((0u64..2_000, 0u8..4, any::<u32>()), 1..300), probes in 1u32..4) {
            let policy = Policy { probes, ..Policy::default() };
            let mut breaker = Breaker::new(policy);
            let (mut now, mut out) = (0, 0u32);
            for (pause, what, chance) in steps {
                now += pause * MS;
                match breaker.ask(now) {
                    Verdict::Pass => {
                        prop_assert!(breaker.is_closed());
                        breaker.record(now, u64::from(what == 0), what > 0, chance);
                    }
                    Verdict::Probe => {
                        out += 1;
                        prop_assert!(out <= probes);
                        if what < 3 {
                            out -= 1;
                            let verdict = [Probed::Sound, Probed::Failed, Probed::Unknown][usize::from(what)];
                            breaker.probed(now, verdict, chance);
                        }
                        if breaker.is_closed() || breaker.open_until().is_some() { out = 0; }
                    }
                    Verdict::Refuse(after) => {
                        prop_assert!(after <= policy.longest_pause);
                        if let Some(until) = breaker.open_until() {
                            prop_assert_eq!(until, now + after);
                            let mut later = breaker;
                            prop_assert_eq!(later.ask(until), Verdict::Probe);
                        }
                    }
                }
            }
        }
    }
}
