//! What admission knows of tenants: a tally of 16 bytes each, found by slug ([`super::tally`]); 32 bytes for each class of routes that a tenant
//! uses, by number; and where processes share rates, a ledger of 16 bytes each, by number.
//!
//! Always: no lock, and no allocation but for the first tenant of a chunk; limits are those of the call, never remembered.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use insula_core::TenantNo;
use insula_planner::gcra::{Nanos, Quota, Wait};
use insula_planner::slab::{REACH, Slab};

use super::class::{ClassNo, MOST};
use super::rate::{Ledger, Rate};
use super::tally::Tallies;

/// Whose rate: a tenant's, or that of one of its classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Meter {
    pub(crate) tenant: TenantNo,
    pub(crate) class: ClassNo,
}

/// One class of a tenant.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(crate) struct Slot {
    pub(crate) rate: Rate,
    ledger: Ledger,
    pub(crate) in_flight: AtomicU32,
}

#[derive(Debug)]
pub(crate) struct Tenants {
    pub(crate) tallies: Tallies,
    /// Of tenants' own rates.
    ledgers: Slab<Ledger>,
    classes: Slab<Slot>,
    /// Processes that share the rates, this one included.
    pub(crate) parties: AtomicU32,
    /// Meters that want a lease; bounded, because each stands in it once.
    pub(crate) wanting: Mutex<Vec<(Meter, Quota)>>,
}

impl Tenants {
    pub(crate) fn new() -> Self {
        Self {
            tallies: Tallies::default(),
            ledgers: Slab::new(),
            classes: Slab::new(),
            parties: AtomicU32::new(1),
            wanting: Mutex::default(),
        }
    }

    /// The state of one class of a tenant; not for the default class.
    #[inline]
    pub(crate) fn class(&self, tenant: TenantNo, class: ClassNo) -> &Slot {
        let number = tenant.get().cast_unsigned() % (REACH / MOST as u64);
        self.classes.at(number * MOST as u64 + class.index().saturating_sub(1) as u64)
    }

    pub(crate) fn ledger(&self, meter: Meter) -> &Ledger {
        if meter.class == ClassNo::DEFAULT {
            return self.ledgers.at(meter.tenant.get().cast_unsigned());
        }
        &self.class(meter.tenant, meter.class).ledger
    }

    pub(crate) fn bytes(&self) -> usize {
        self.tallies.bytes() + self.ledgers.bytes() + self.classes.bytes()
    }

    /// Takes `cost` units of a meter's rate: of this process's part of it, else of a lease.
    #[inline]
    pub(crate) fn take(&self, rate: &Rate, meter: Meter, quota: Quota, now: Nanos, cost: u32) -> Result<(), Wait> {
        let parties = self.parties.load(Ordering::Relaxed);
        if parties <= 1 {
            return rate.take(quota, now, cost);
        }
        self.take_shared(rate, meter, quota, now, cost, parties)
    }

    fn take_shared(&self, rate: &Rate, meter: Meter, quota: Quota, now: Nanos, cost: u32, parties: u32) -> Result<(), Wait> {
        let ledger = self.ledger(meter);
        let Err(wait) = rate.take(quota.fraction(parties), now, cost) else {
            ledger.spent.fetch_add(cost, Ordering::Relaxed);
            return Ok(());
        };
        let leased = ledger.take_leased(now, cost);
        if ledger.wanted.fetch_add(cost, Ordering::Relaxed) == 0 {
            self.wanting.lock().unwrap_or_else(PoisonError::into_inner).push((meter, quota));
        }
        if leased { Ok(()) } else { Err(wait) }
    }
}

/// Takes one of `most` places; `false` when all are taken.
#[inline]
pub(crate) fn enter(count: &AtomicU32, most: u32) -> bool {
    if count.fetch_add(1, Ordering::Relaxed) < most {
        return true;
    }
    leave(count);
    false
}

#[inline]
pub(crate) fn leave(count: &AtomicU32) {
    count.fetch_sub(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn a_slot_is_half_a_cache_line_and_a_ledger_a_quarter() {
        assert_eq!((size_of::<Slot>(), size_of::<Ledger>()), (32, 16));
    }

    /// Eight threads hammer one rate at one moment: exactly the burst passes. So it is in a line, beyond the lines, and in a class.
    #[test]
    fn threads_together_take_no_more_than_the_burst() {
        let (tenants, quota) = (Tenants::new(), Quota::new(10, 1_000));
        let line = tenants.tallies.line("acme");
        let by_class = Meter { tenant: TenantNo::new(7).unwrap(), class: ClassNo(3) };
        let own = [7, 1 << 40].map(|no| Meter { tenant: TenantNo::new(no).unwrap(), class: ClassNo::DEFAULT });
        for meter in [own[0], own[1], by_class] {
            let taken = AtomicU32::new(0);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..1_000 {
                            let rate = match meter.class {
                                ClassNo::DEFAULT => &tenants.tallies.find(line, meter.tenant).1.rate,
                                class => &tenants.class(meter.tenant, class).rate,
                            };
                            if tenants.take(rate, meter, quota, 5, 1).is_ok() {
                                taken.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            assert_eq!(taken.into_inner(), 1_000, "{meter:?}");
        }
    }

    #[test]
    fn a_lease_is_spent_after_the_own_part_and_lapses() {
        let (tenants, quota) = (Tenants::new(), Quota::new(1, 10));
        tenants.parties.store(2, Ordering::Relaxed);
        let tenant = TenantNo::new(7).unwrap();
        let (_, tally) = tenants.tallies.find(tenants.tallies.line("acme"), tenant);
        for (class, rate) in [(ClassNo::DEFAULT, &tally.rate), (ClassNo(3), &tenants.class(tenant, ClassNo(3)).rate)] {
            let meter = Meter { tenant, class };
            let ledger = tenants.ledger(meter);
            let take = |now| (0..100).filter(|_| tenants.take(rate, meter, quota, now, 1).is_ok()).count();
            assert_eq!(take(MS), 5, "half of the burst");
            assert_eq!(std::mem::take(&mut *tenants.wanting.lock().unwrap()), [(meter, quota)]);
            assert_eq!((ledger.spent.load(Ordering::Relaxed), ledger.wanted.load(Ordering::Relaxed)), (5, 95));
            ledger.grant(3, MS, 300 * MS);
            assert_eq!(take(2 * MS), 3);
            ledger.grant(4, MS, 300 * MS);
            assert_eq!(ledger.leased(299 * MS), 4);
            assert_eq!(take(301 * MS), 0, "lapsed");
        }
    }

    #[test]
    fn all_slabs_are_counted_and_who_shares_with_nobody_has_no_ledgers() {
        let (tenants, quota) = (Tenants::new(), Quota::new(10, 10));
        let meter = |no, class| Meter { tenant: TenantNo::new(no).unwrap(), class: ClassNo(class) };
        let taken = |meter: Meter| {
            let before = tenants.bytes();
            let rate = match meter.class {
                ClassNo::DEFAULT => &tenants.tallies.find(tenants.tallies.line("acme"), meter.tenant).1.rate,
                class => &tenants.class(meter.tenant, class).rate,
            };
            tenants.take(rate, meter, quota, 5, 1).unwrap();
            tenants.bytes() - before
        };
        let (line, beyond, class) = (taken(meter(7, 0)), taken(meter(1 << 40, 0)), taken(meter(7, 3)));
        assert!(line >= 512 * 64 && beyond >= 4_096 * 16 && class >= 4_096 * 32, "{line}, {beyond}, {class}");
        assert_eq!(taken(meter(8, 0)), 0, "as much for five");
        tenants.parties.store(2, Ordering::Relaxed);
        let ledgers = taken(meter(7, 0));
        assert!(ledgers >= 4_096 * 16, "{ledgers}");
    }
}
