//! What several processes take a shared rate from: a pot that refills at the rate, gives leases ahead, and is charged with what was
//! spent without asking. The same state as a `gcra` limit, one number; the store that keeps it for many processes (Redis) does this same
//! arithmetic in a script of its own, and a test holds the two together.
//!
//! Always: what a pot gives in any span, together with what it is charged with in it, is at most its capacity and what the rate gives, unless
//! charges alone are more; then it gives nothing until they are paid for.

use crate::gcra::Nanos;

/// A pot's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pot {
    /// When it would be full.
    full_at: Nanos,
}

impl Pot {
    /// Full.
    #[must_use]
    pub const fn new() -> Self {
        Self { full_at: 0 }
    }

    /// Full at a moment to come; so it is opened: who opens it when it is wanted must not give away what others may have used already.
    #[must_use]
    pub const fn full_at(moment: Nanos) -> Self {
        Self { full_at: moment }
    }

    /// Takes note of units spent without asking.
    pub const fn charge(&mut self, now: Nanos, interval: Nanos, units: u32) {
        let from = if self.full_at > now { self.full_at } else { now };
        self.full_at = from.saturating_add(interval.saturating_mul(units as u64));
    }

    /// Gives up to `wanted` units of a pot that holds `capacity`.
    pub const fn give(&mut self, now: Nanos, interval: Nanos, capacity: u64, wanted: u32) -> u32 {
        let interval = if interval == 0 { 1 } else { interval };
        let from = if self.full_at > now { self.full_at } else { now };
        let room = now.saturating_add(interval.saturating_mul(capacity)).saturating_sub(from) / interval;
        let given = if room < wanted as u64 { room as u32 } else { wanted };
        self.full_at = from.saturating_add(interval * given as u64);
        given
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_charge_is_paid_before_anything_is_given() {
        let mut pot = Pot::new();
        assert_eq!(pot.give(0, 10, 5, 100), 5);
        assert_eq!(pot.give(9, 10, 5, 100), 0);
        assert_eq!(pot.give(20, 10, 5, 1), 1);
        pot.charge(20, 10, 6);
        assert_eq!(pot.give(70, 10, 5, 100), 0, "one from before and five of the six are paid");
        assert_eq!(pot.give(80, 10, 5, 100), 1);
    }

    proptest! {
        #[test]
        fn it_gives_what_comes_in(interval in 1u64..1_000, capacity in 1u64..50, steps in proptest::collection::vec((0u64..5_000, 0u32..40), 1..100)) {
            let (mut pot, mut now) = (Pot::new(), 0);
            let mut given: Vec<(u64, u64)> = Vec::new();
            for (pause, wanted) in steps {
                now += pause;
                given.push((now, u64::from(pot.give(now, interval, capacity, wanted))));
            }
            for from in 0..given.len() {
                let mut sum = 0;
                for (at, units) in &given[from..] {
                    sum += units;
                    prop_assert!(sum <= capacity + (at - given[from].0) / interval + 1);
                }
            }
        }
    }
}
