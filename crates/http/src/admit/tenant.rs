//! What admission knows of tenants: 32 bytes each, and as much for each class of routes that a tenant uses.
//!
//! Always: no lock, and no allocation but for the first tenant of a chunk; limits are those of the call, never remembered.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use insula_core::TenantNo;
use insula_planner::gcra::{Nanos, Quota, Wait};
use insula_planner::slab::{REACH, Slab};

use super::class::{ClassNo, MOST};

/// Whose rate: a tenant's, or that of one of its classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Meter {
    pub(crate) tenant: TenantNo,
    pub(crate) class: ClassNo,
}

/// A rate's state, and what gateways that share it owe each other.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// Theoretical arrival time (`planner::gcra`) of what this process may let through by itself.
    tat: AtomicU64,
    /// Leased beyond that: units in the high half, the millisecond at which they lapse in the low one.
    lease: AtomicU64,
    /// Units let through by itself since the last report.
    pub(crate) spent: AtomicU32,
    /// Units that were refused, or taken from a lease, since the last report.
    pub(crate) wanted: AtomicU32,
}

/// One tenant, or one of its classes.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(crate) struct Slot {
    pub(crate) bucket: Bucket,
    pub(crate) in_flight: AtomicU32,
}

#[derive(Debug)]
pub(crate) struct Tenants {
    slots: Slab<Slot>,
    classes: Slab<Slot>,
    /// Processes that share the rates, this one included.
    pub(crate) parties: AtomicU32,
    /// Meters that want a lease; bounded, because each stands in it once.
    pub(crate) wanting: Mutex<Vec<(Meter, Quota)>>,
}

impl Tenants {
    pub(crate) fn new() -> Self {
        Self { slots: Slab::new(), classes: Slab::new(), parties: AtomicU32::new(1), wanting: Mutex::default() }
    }

    #[inline]
    pub(crate) fn slot(&self, tenant: TenantNo) -> &Slot {
        self.slots.at(tenant.get().cast_unsigned())
    }

    /// As [`Slab::expect`].
    #[inline]
    pub(crate) fn expect(&self, tenant: u64) {
        self.slots.expect(tenant);
    }

    /// The state of one class of a tenant; not for the default class.
    #[inline]
    pub(crate) fn class(&self, tenant: TenantNo, class: ClassNo) -> &Slot {
        let number = tenant.get().cast_unsigned() % (REACH / MOST as u64);
        self.classes.at(number * MOST as u64 + class.index().saturating_sub(1) as u64)
    }

    pub(crate) fn of(&self, meter: Meter) -> &Slot {
        if meter.class == ClassNo::DEFAULT { self.slot(meter.tenant) } else { self.class(meter.tenant, meter.class) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.slots.bytes() + self.classes.bytes()
    }

    /// Takes `cost` units of a rate: of this process's part of it, else of a lease.
    #[inline]
    pub(crate) fn take(&self, slot: &Slot, meter: Meter, quota: Quota, now: Nanos, cost: u32) -> Result<(), Wait> {
        let parties = self.parties.load(Ordering::Relaxed);
        if parties <= 1 {
            return slot.bucket.take(quota, now, cost);
        }
        self.take_shared(slot, meter, quota, now, cost, parties)
    }

    fn take_shared(&self, slot: &Slot, meter: Meter, quota: Quota, now: Nanos, cost: u32, parties: u32) -> Result<(), Wait> {
        let bucket = &slot.bucket;
        let Err(wait) = bucket.take(quota.fraction(parties), now, cost) else {
            bucket.spent.fetch_add(cost, Ordering::Relaxed);
            return Ok(());
        };
        let leased = bucket.take_leased(now, cost);
        if bucket.wanted.fetch_add(cost, Ordering::Relaxed) == 0 {
            self.wanting.lock().unwrap_or_else(PoisonError::into_inner).push((meter, quota));
        }
        if leased { Ok(()) } else { Err(wait) }
    }
}

const MS: Nanos = 1_000_000;

impl Bucket {
    #[inline]
    fn take(&self, quota: Quota, now: Nanos, cost: u32) -> Result<(), Wait> {
        let mut tat = self.tat.load(Ordering::Relaxed);
        loop {
            let taken = quota.take(tat, now, cost);
            let next = match &taken {
                Ok(next) => *next,
                Err(wait) if wait.tat < tat => wait.tat,
                Err(_) => return taken.map(|_| ()),
            };
            // Only this one number matters: no other memory is published with it.
            match self.tat.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return taken.map(|_| ()),
                Err(newer) => tat = newer,
            }
        }
    }

    /// Gives back what a request took that did not go on after all.
    pub(crate) fn refund(&self, quota: Quota, cost: u32) {
        let price = quota.price(cost);
        let _ = self.tat.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tat| Some(tat.saturating_sub(price)));
    }

    fn take_leased(&self, now: Nanos, cost: u32) -> bool {
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

    #[test]
    fn a_slot_is_half_a_cache_line() {
        assert_eq!(size_of::<Slot>(), 32);
    }

    /// Eight threads hammer one bucket at one moment: exactly the burst passes.
    #[test]
    fn threads_together_take_no_more_than_the_burst() {
        let (tenants, quota) = (Tenants::new(), Quota::new(10, 1_000));
        let meter = Meter { tenant: TenantNo::new(7).unwrap(), class: ClassNo::DEFAULT };
        let taken = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        if tenants.take(tenants.of(meter), meter, quota, 5, 1).is_ok() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 1_000);
    }

    #[test]
    fn a_lease_is_spent_after_the_own_part_and_lapses() {
        let (tenants, quota) = (Tenants::new(), Quota::new(1, 10));
        tenants.parties.store(2, Ordering::Relaxed);
        let meter = Meter { tenant: TenantNo::new(7).unwrap(), class: ClassNo(3) };
        let slot = tenants.of(meter);
        let take = |now| (0..100).filter(|_| tenants.take(slot, meter, quota, now, 1).is_ok()).count();
        assert_eq!(take(MS), 5, "half of the burst");
        assert_eq!(tenants.wanting.lock().unwrap().as_slice(), [(meter, quota)]);
        assert_eq!((slot.bucket.spent.load(Ordering::Relaxed), slot.bucket.wanted.load(Ordering::Relaxed)), (5, 95));
        slot.bucket.grant(3, MS, 300 * MS);
        assert_eq!(take(2 * MS), 3);
        slot.bucket.grant(4, MS, 300 * MS);
        assert_eq!(slot.bucket.leased(299 * MS), 4);
        assert_eq!(take(301 * MS), 0, "lapsed");
    }
}
