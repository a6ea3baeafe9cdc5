//! The right of one request to be at work. Always: what it holds is given back exactly once, when it is dropped.

use std::sync::Arc;
use std::time::Instant;

use insula_core::TenantNo;
use insula_planner::gcra::Nanos;

use super::cell::{Desk, Outcome};
use super::class::ClassNo;
use super::tally::Spot;
use super::tenant::leave;

/// What a permit holds, as bits.
pub(crate) mod held {
    pub(crate) const TENANT: u8 = 1;
    pub(crate) const CLASS: u8 = 2;
    pub(crate) const BULKHEAD: u8 = 4;
    pub(crate) const SEAT: u8 = 8;
    pub(crate) const PROBE: u8 = 16;
}

/// The right of one request to be at work. Keep it as long as the work lasts: until the end of the answer's body.
#[derive(Debug)]
#[must_use = "dropped at once, it protects nothing"]
pub struct Permit {
    pub(crate) gate: Arc<Desk>,
    pub(crate) tenant: TenantNo,
    /// When the work began; waiting before it does not count as the cell's time.
    pub(crate) started: Nanos,
    /// Where the tenant's tally is: its slug is not hashed again.
    pub(crate) spot: Spot,
    pub(crate) class: ClassNo,
    pub(crate) held: u8,
    pub(crate) told: bool,
}

impl Permit {
    /// Tells what became of the request, as soon as its answer's head is there: the time until then is what teaches the cell's
    /// limit. Only the first word counts.
    #[inline]
    pub fn finish(&mut self, outcome: Outcome) {
        self.finish_at(outcome, Instant::now());
    }

    /// The same, when the clock was read already: the head was there at that moment.
    #[inline]
    pub fn finish_at(&mut self, outcome: Outcome, moment: Instant) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let now = self.gate.ticks.at(moment);
        if self.held & held::PROBE != 0 {
            self.held &= !held::PROBE;
            self.gate.probed(outcome, now);
        }
        self.gate.learn(self.tenant, outcome, now.saturating_sub(self.started), now);
    }

    /// Gives the cell's seat back and keeps the tenant's: for an answer that lasts without being work (an event stream, an upgraded
    /// connection).
    pub fn linger(&mut self) {
        if self.held & held::SEAT != 0 {
            self.held &= !held::SEAT;
            self.gate.leave_seat();
        }
    }

    pub(crate) const fn holds(&self, what: u8) -> bool {
        self.held & what != 0
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.holds(held::TENANT) {
            leave(&self.gate.tenants.tallies.at(self.spot, self.tenant).in_flight);
        }
        if self.holds(held::CLASS) {
            leave(&self.gate.tenants.class(self.tenant, self.class).in_flight);
        }
        if self.holds(held::BULKHEAD) {
            leave(&self.gate.classes[self.class.index()]);
        }
        if self.holds(held::PROBE) {
            self.gate.probed(Outcome::Unknown, self.gate.ticks.now());
        }
        // Last: whoever is seated now finds the rest free.
        if self.holds(held::SEAT) {
            self.gate.leave_seat();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use insula_catalog::fake::{self, FakeSource};
    use insula_catalog::{Catalog, Options};
    use insula_core::{Limits, TenantNo};

    use super::super::{Admission, Why};
    use super::*;

    #[test]
    fn a_permit_is_half_a_cache_line() {
        assert_eq!(size_of::<Permit>(), 32);
    }

    /// A tenant in its line, one that found the line full, and one whose number is above 32 bits: each has its own places, and gets
    /// them back where it took them.
    #[tokio::test]
    async fn places_come_back_to_the_tally_that_they_were_taken_of() {
        const FAR: i64 = 1 << 40;
        let source = FakeSource::new();
        source.change(|content| {
            let mut plan = fake::plan("bronze").unwrap();
            plan.limits = Limits { max_concurrent_requests: 3, ..Limits::default() };
            content.put_plan(plan);
            content.put_cell(fake::cell("main", "127.0.0.1", 1).unwrap());
            content.put_database(fake::database("main", "insula_pool", 0).unwrap());
            for (slug, no) in [("inside", 1), ("pushed-out", 2), ("far", FAR)] {
                content.put_tenant(fake::tenant(slug, no, "bronze", "main").unwrap());
            }
        });
        let catalog = Catalog::start(source, Options::default());
        catalog.ready().await;
        let admission = Admission::default();
        let tallies = &admission.house.tenants.tallies;
        // Its own first: should both slugs have one line, there is still room.
        let route = |slug: &str| catalog.by_slug(slug).unwrap().arc();
        drop(admission.try_admit(&route("inside"), ClassNo::DEFAULT).unwrap());
        for no in 100..104 {
            tallies.find(tallies.line("pushed-out"), TenantNo::new(no).unwrap());
        }
        for (slug, beyond) in [("inside", false), ("pushed-out", true), ("far", true)] {
            let route = route(slug);
            let at_work = || tallies.find(tallies.line(slug), route.no).1.in_flight.load(Ordering::Relaxed);
            for _ in 0..3 {
                let mut permits: Vec<_> = (0..3).map(|_| admission.try_admit(&route, ClassNo::DEFAULT).unwrap()).collect();
                assert!(permits.iter().all(|permit| (permit.spot == Spot::BEYOND) == beyond), "{slug}");
                let fourth = admission.try_admit(&route, ClassNo::DEFAULT).unwrap_err();
                assert_eq!((fourth.why, at_work()), (Why::Concurrency(3), 3), "{slug}");
                permits.pop();
                assert_eq!(at_work(), 2, "{slug}");
                drop(permits);
                assert_eq!(at_work(), 0, "{slug}");
            }
        }
    }
}
