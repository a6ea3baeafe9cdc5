//! A rate's state in one number, and what processes that share it owe each other. Not for: whose it is ([`super::tenant`]).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use insula_planner::gcra::{Nanos, Quota, Wait};

/// The theoretical arrival time (`planner::gcra`) of what this process may let through by itself.
#[derive(Debug, Default)]
pub(crate) struct Rate(AtomicU64);

/// What is owed beyond a burst stays owed, up to this: those who come at once have looked at the clock one after the other, and to the one that
/// looked first the others seem to owe more than there can be. A raised limit that is this close holds so much later.
const LATE: Nanos = 20_000_000;

impl Rate {
    /// Takes units for who looked at the clock at `now`, which may be up to [`LATE`] ago.
    #[inline]
    pub(crate) fn take(&self, quota: Quota, now: Nanos, cost: u32) -> Result<(), Wait> {
        let mut tat = self.0.load(Ordering::Relaxed);
        loop {
            let taken = quota.take(tat, now, cost);
            let next = match &taken {
                Ok(next) => *next,
                Err(wait) if wait.tat.saturating_add(LATE) < tat => wait.tat,
                Err(_) => return taken.map(|_| ()),
            };
            // Only this one number matters: no other memory is published with it.
            match self.0.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return taken.map(|_| ()),
                Err(newer) => tat = newer,
            }
        }
    }

    /// Gives back what a request took that did not go on after all.
    pub(crate) fn refund(&self, quota: Quota, cost: u32) {
        let price = quota.price(cost);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tat| Some(tat.saturating_sub(price)));
    }
}

/// What processes that share a rate owe each other. One that shares with nobody never looks at it.
#[derive(Debug, Default)]
#[repr(align(16))]
pub(crate) struct Ledger {
    /// Leased beyond the process's own part: units in the high half, the millisecond at which they lapse in the low one.
    lease: AtomicU64,
    /// Units let through by itself since the last report.
    pub(crate) spent: AtomicU32,
    /// Units that were refused, or taken from a lease, since the last report.
    pub(crate) wanted: AtomicU32,
}

impl Ledger {
    pub(crate) fn take_leased(&self, now: Nanos, cost: u32) -> bool {
        let take = |lease: u64| {
            let (units, lapses) = halves(lease);
            lasts(lapses, now).then(|| units.checked_sub(cost)).flatten().map(|left| u64::from(left) << 32 | u64::from(lapses))
        };
        self.lease.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Adds leased units, and lets all that are leased lapse at `lapses`.
    pub(crate) fn grant(&self, units: u32, now: Nanos, lapses: Nanos) {
        let add = |lease: u64| {
            let (had, lapse) = halves(lease);
            let had = if lasts(lapse, now) { had } else { 0 };
            Some(u64::from(had.saturating_add(units)) << 32 | u64::from(millis(lapses)))
        };
        let _ = self.lease.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Leased units that are left.
    pub(crate) fn leased(&self, now: Nanos) -> u32 {
        let (units, lapses) = halves(self.lease.load(Ordering::Relaxed));
        if lasts(lapses, now) { units } else { 0 }
    }
}

const MS: Nanos = 1_000_000;

/// Units and the millisecond at which they lapse.
const fn halves(lease: u64) -> (u32, u32) {
    ((lease >> 32) as u32, lease as u32)
}

/// Milliseconds, round and round: a lease lasts far less than the three weeks at which before and after are mistaken.
const fn millis(at: Nanos) -> u32 {
    (at / MS) as u32
}

const fn lasts(lapses: u32, now: Nanos) -> bool {
    (lapses.wrapping_sub(millis(now)) as i32) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of those who come together, some looked at the clock a while ago: they take nothing from what the others owe.
    #[test]
    fn who_looked_at_the_clock_early_makes_no_room() {
        let (rate, quota) = (Rate::default(), Quota::new(1_000, 100));
        let (mut now, mut passed) = (1_000_000_000, 0);
        for n in 0..10_000u64 {
            // A thousand each millisecond, for ten of them: every second one looked at the clock up to 10 ms before.
            now += 1_000;
            passed += u64::from(rate.take(quota, now - n % 2 * (n * 7_919 % 10_000_000), 1).is_ok());
        }
        assert_eq!(passed, 109, "the burst, and what came back in not quite ten milliseconds");
    }

    #[test]
    fn a_raised_limit_lowers_what_is_owed() {
        let (rate, slow) = (Rate::default(), Quota::new(1, 100));
        assert_eq!((0..200).filter(|_| rate.take(slow, 1, 1).is_ok()).count(), 100);
        let quick = Quota::new(1_000, 10);
        assert!(rate.take(quick, 1, 1).is_err());
        assert!(rate.take(quick, 1_000_001, 1).is_ok(), "a unit is back after a millisecond");
    }
}
