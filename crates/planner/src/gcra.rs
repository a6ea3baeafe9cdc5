//! Rate limits: the generic cell rate algorithm (ITU-T I.371, annex A; "virtual scheduling"), which holds a tenant's whole state
//! in one number, the *theoretical arrival time* (TAT).
//!
//! For: whether a request may come now, and when it may if not. Not for: keeping the number, or the time.
//! Always: what is let through in any span of `t` costs at most `burst + rate * t`; a limit that changes is in force with the
//! next request, because what a tenant owes is never more than one full burst of the limit at hand.

/// Nanoseconds since a moment that the caller chose once.
pub type Nanos = u64;

const SECOND: u64 = 1_000_000_000;

/// A sustained rate, and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Time that one unit of cost takes to come back.
    interval: u64,
    /// Units that may come at once.
    burst: u64,
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// There will be room after this many nanoseconds, if nobody else takes it.
    pub after: Nanos,
    /// The TAT to keep. Smaller than it was when the limit has been raised: then what is owed has been lowered to one burst.
    pub tat: Nanos,
}

impl Quota {
    /// `per_second` units sustained, `burst` at once; both at least 1. The time of a unit is rounded up: never more than the rate.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let rate = if per_second == 0 { 1 } else { per_second as u64 };
        let burst = if burst == 0 { 1 } else { burst as u64 };
        Self { interval: SECOND.div_ceil(rate), burst }
    }

    /// The part that one of `parties` may use when each decides alone: together they stay within the whole, as long as the burst
    /// has a unit for each.
    #[must_use]
    pub const fn fraction(self, parties: u32) -> Self {
        let parties = if parties == 0 { 1 } else { parties as u64 };
        let burst = self.burst / parties;
        Self { interval: self.interval.saturating_mul(parties), burst: if burst == 0 { 1 } else { burst } }
    }

    /// Takes `cost` units. The answer is the new TAT. A cost above the burst counts as a full burst, so that no cost is impossible.
    ///
    /// # Errors
    /// [`Wait`].
    #[inline]
    pub const fn take(self, tat: Nanos, now: Nanos, cost: u32) -> Result<Nanos, Wait> {
        let (tolerance, owed) = (self.tolerance(), self.owed(tat, now));
        let next = owed + self.price(cost);
        if next <= tolerance { Ok(now + next) } else { Err(Wait { after: next - tolerance, tat: now + owed }) }
    }

    /// What [`Quota::take`] added for `cost`: to be subtracted when the request did not go on after all.
    #[must_use]
    #[inline]
    pub const fn price(self, cost: u32) -> Nanos {
        let cost = cost as u64;
        self.interval.saturating_mul(if cost < self.burst { cost } else { self.burst })
    }

    /// Whole units that may come now.
    #[must_use]
    pub const fn remaining(self, tat: Nanos, now: Nanos) -> u64 {
        (self.tolerance() - self.owed(tat, now)) / self.interval
    }

    /// Nanoseconds until the whole burst is there again.
    #[must_use]
    pub const fn full_in(self, tat: Nanos, now: Nanos) -> Nanos {
        self.owed(tat, now)
    }

    /// Units that may come at once.
    #[must_use]
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// Units a second, to the nearest whole one.
    #[must_use]
    pub const fn per_second(self) -> u64 {
        (SECOND + self.interval / 2) / self.interval
    }

    /// Nanoseconds that one unit takes to come back.
    #[must_use]
    pub const fn interval(self) -> Nanos {
        self.interval
    }

    /// Nanoseconds in which a whole burst comes back: the window in which `burst` is the quota.
    #[must_use]
    pub const fn window(self) -> Nanos {
        self.tolerance()
    }

    const fn tolerance(self) -> Nanos {
        // Below 2^62 for every rate and burst of 32 bits: sums of a few of them fit.
        let product = self.interval.saturating_mul(self.burst);
        if product < 1 << 62 { product } else { 1 << 62 }
    }

    /// Time that is owed, never more than the tolerance: a lowered debt is how a raised limit is in force at once.
    #[inline]
    const fn owed(self, tat: Nanos, now: Nanos) -> Nanos {
        let owed = tat.saturating_sub(now);
        let tolerance = self.tolerance();
        if owed < tolerance { owed } else { tolerance }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let quota = Quota::new(10, 5);
        let mut tat = 0;
        for _ in 0..5 {
            tat = quota.take(tat, 0, 1).expect("within the burst");
        }
        assert_eq!(quota.take(tat, 0, 1), Err(Wait { after: SECOND / 10, tat }));
        assert_eq!(quota.remaining(tat, SECOND / 10), 1);
        tat = quota.take(tat, SECOND / 10, 1).expect("one came back");
        assert!(quota.take(tat, SECOND / 10, 1).is_err());
        assert_eq!(quota.full_in(tat, SECOND / 10), SECOND / 2);
    }

    #[test]
    fn a_changed_limit_is_in_force_with_the_next_request() {
        let (slow, quick) = (Quota::new(1, 100), Quota::new(1_000, 10));
        let mut tat = 0;
        while let Ok(next) = slow.take(tat, 0, 1) {
            tat = next;
        }
        // Exhausted under the slow limit; under the quick one, a unit is back after a millisecond and not after a second.
        let Err(wait) = quick.take(tat, 0, 1) else { panic!("exhausted") };
        assert_eq!(wait, Wait { after: 1_000_000, tat: 10_000_000 });
        assert!(quick.take(wait.tat, 1_000_000, 1).is_ok());
    }

    proptest! {
        /// Whatever comes and whenever: no span of time sees more than the burst and what the rate gives in it.
        #[test]
        fn no_span_sees_more_than_burst_and_rate(
            rate in 1u32..5_000, burst in 1u32..200, steps in proptest::collection::vec((0u64..40_000_000, 1u32..20), 1..200),
        ) {
            let quota = Quota::new(rate, burst);
            let (mut now, mut tat) = (0, 0);
            let mut passed: Vec<(u64, u64)> = Vec::new();
            for (pause, cost) in steps {
                now += pause;
                match quota.take(tat, now, cost) {
                    Ok(next) => {
                        tat = next;
                        passed.push((now, u64::from(cost.min(burst))));
                    }
                    // The answer is exact: not a nanosecond earlier, and then for certain.
                    Err(Wait { after, .. }) => {
                        prop_assert!(quota.take(tat, now + after, cost).is_ok());
                        prop_assert!(quota.take(tat, now + after - 1, cost).is_err());
                    }
                }
            }
            for from in 0..passed.len() {
                let mut sum = 0;
                for (at, cost) in &passed[from..] {
                    sum += cost;
                    let most = u128::from(burst) * u128::from(SECOND) + u128::from(rate) * u128::from(at - passed[from].0);
                    prop_assert!(u128::from(sum) * u128::from(SECOND) <= most, "{sum} units");
                }
            }
        }

        /// Who never asks for more than the rate is never refused.
        #[test]
        fn the_rate_itself_always_passes(rate in 1u32..100_000, burst in 1u32..50, n in 1usize..300) {
            let quota = Quota::new(rate, burst);
            let (mut now, mut tat) = (7, 0);
            for _ in 0..n {
                tat = quota.take(tat, now, 1).expect("within the rate");
                now += SECOND.div_ceil(u64::from(rate));
            }
        }

        /// Fractions together are not more than the whole.
        #[test]
        fn fractions_stay_within_the_whole(rate in 1u32..100_000, burst in 1u32..1_000, parties in 1u32..50) {
            let (whole, part) = (Quota::new(rate, burst), Quota::new(rate, burst).fraction(parties));
            prop_assert!(part.burst * u64::from(parties) <= whole.burst.max(u64::from(parties)));
            prop_assert!(part.interval >= whole.interval * u64::from(parties));
        }
    }
}
