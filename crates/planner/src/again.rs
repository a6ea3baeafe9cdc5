//! When failed work is tried again: exponential backoff with jitter, and a budget, so that a tenant whose jobs all fail does not
//! spend the workers on retries.
//!
//! Always: no randomness of its own (the caller brings it) and no clock; a delay never exceeds its most; what exceeds the budget is
//! delayed by the most, never dropped.

use std::time::Duration;

/// How delays grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// No delay is longer.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(2), most: Duration::from_secs(3_600) }
    }
}

impl Backoff {
    /// The delay after the `failed`th attempt (from 1): doubles, and is a half to the whole of that by `random`, so that jobs that
    /// failed together do not come back together.
    #[must_use]
    pub fn delay(&self, failed: u32, random: u64) -> Duration {
        let whole = self.first.saturating_mul(1 << failed.saturating_sub(1).min(20)).min(self.most);
        let part = u32::try_from(random % 1_025).unwrap_or(0);
        whole / 2 + (whole / 2) * part / 1_024
    }
}

/// What a tenant may spend on retries: a tenth of what succeeds, and a few to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    tenths: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { tenths: Self::MOST / 2 }
    }
}

impl Budget {
    const MOST: u32 = 400;
    const PRICE: u32 = 10;

    /// A job succeeded.
    pub const fn earn(&mut self) {
        if self.tenths < Self::MOST {
            self.tenths += 1;
        }
    }

    /// Whether a quick retry is paid for.
    pub const fn spend(&mut self) -> bool {
        let paid = self.tenths >= Self::PRICE;
        if paid {
            self.tenths -= Self::PRICE;
        }
        paid
    }

    /// Whether it is as it was in the beginning: nothing need be known of the tenant.
    #[must_use]
    pub const fn is_rested(&self) -> bool {
        self.tenths >= Self::MOST / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_within_bounds_and_differ() {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
        for failed in 1..200 {
            let whole = Duration::from_secs(1 << (failed - 1).min(6)).min(backoff.most);
            let (least, most) = (backoff.delay(failed, 0), backoff.delay(failed, 1_024));
            assert_eq!((least, most), (whole / 2, whole), "attempt {failed}");
        }
        assert!(Backoff::default().delay(u32::MAX, u64::MAX) <= Duration::from_secs(3_600));
    }

    #[test]
    fn a_budget_is_a_tenth_of_what_succeeds() {
        let mut budget = Budget::default();
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 20);
        (0..10).for_each(|_| budget.earn());
        assert!(budget.spend() && !budget.spend() && !budget.is_rested());
    }
}
