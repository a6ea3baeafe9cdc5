//! The right of one request to be at work. Always: what it holds is given back exactly once, when it is dropped.

use std::sync::Arc;
use std::time::Instant;

use insula_core::TenantNo;
use insula_planner::gcra::Nanos;

use super::cell::{Desk, Outcome};
use super::class::ClassNo;
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
    pub(crate) class: ClassNo,
    pub(crate) held: u8,
    /// When the work began; waiting before it does not count as the cell's time.
    pub(crate) started: Nanos,
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
            leave(&self.gate.tenants.slot(self.tenant).in_flight);
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
