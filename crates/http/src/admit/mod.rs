//! May this request go on now? A tenant's plan, its cell's health and everybody's fair share, decided in a fraction of a microsecond.
//!
//! For: gateway and SDK alike ([`Admission`] needs no body and no framework; [`AdmitLayer`] is a tower layer for any body). Not for: whose
//! request it is ([`crate::resolve`]), or database connections (`insula-data` shares those).
//!
//! In this order: the cell's circuit; the tenant's requests at work; the class's, and its bulkhead in the cell; the tenant's rate
//! and the class's; a seat in the cell, for which a request waits in a fair line when all are taken.
//! Always: limits are those of the route at hand, so a changed plan is in force with the next request that sees it; deciding takes no lock and
//! allocates nothing while the cell has room; what a permit holds comes back when it is dropped.

mod cell;
mod class;
mod config;
mod gates;
mod layer;
pub mod lease;
mod permit;
mod rate;
mod reading;
#[cfg(feature = "redis")]
pub mod redis;
mod refused;
mod seats;
mod tally;
mod tenant;
mod ticks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_catalog::Card;
use insula_core::{CellName, ClassLimits};
use insula_planner::breaker::Verdict;
use insula_planner::gcra::{Nanos, Quota, Wait};

pub use cell::Outcome;
pub use class::{ClassConfig, ClassError, ClassNo, Classes, MOST as MOST_CLASSES};
pub use config::{AdmissionConfig, BreakerConfig, LimitConfig};
pub use layer::{Admit, AdmitLayer, Held};
pub use lease::Sharing;
pub use permit::Permit;
pub use reading::Reading;
pub use refused::{LIMIT, OVERLOADED, POLICY, Refused, Why};
pub use ticks::Ticks;

use cell::{Desk, Gate};
use gates::Gates;
use permit::held;
use tally::Spot;
use tenant::{Meter, Tenants, enter};

/// Decides what goes on. Clones share everything.
#[derive(Clone, Debug)]
pub struct Admission {
    house: Arc<House>,
}

#[derive(Debug)]
struct House {
    config: AdmissionConfig,
    classes: Classes,
    tenants: Arc<Tenants>,
    ticks: Ticks,
    gates: Gates,
}

/// How things stand in one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellLoad {
    /// Which.
    pub cell: CellName,
    /// Requests at work.
    pub in_flight: u32,
    /// How many may be.
    pub limit: u32,
    /// Requests in line.
    pub waiting: u32,
    /// Whether its circuit is closed.
    pub closed: bool,
}

impl Admission {
    /// By the machine's clock.
    ///
    /// # Errors
    /// When the configured classes cannot be.
    pub fn new(config: AdmissionConfig) -> Result<Self, ClassError> {
        Self::with_ticks(config, Ticks::machine())
    }

    /// By another clock.
    ///
    /// # Errors
    /// As [`Admission::new`].
    pub fn with_ticks(config: AdmissionConfig, ticks: Ticks) -> Result<Self, ClassError> {
        let classes = Classes::new(&config.classes)?;
        Ok(Self::by(config, classes, ticks))
    }

    fn by(config: AdmissionConfig, classes: Classes, ticks: Ticks) -> Self {
        let tenants = Arc::new(Tenants::new());
        Self { house: Arc::new(House { config, classes, tenants, ticks, gates: Gates::default() }) }
    }

    /// The classes of this process.
    #[must_use]
    pub fn classes(&self) -> &Classes {
        &self.house.classes
    }

    /// Decides at once: a full cell refuses.
    ///
    /// # Errors
    /// [`Refused`], with what to answer.
    #[inline]
    pub fn try_admit(&self, tenant: &Card, class: ClassNo) -> Result<Permit, Refused> {
        self.try_admit_at(tenant, class, Instant::now())
    }

    /// The same, when the clock was read a moment ago: see [`Admission::enter_at`].
    ///
    /// # Errors
    /// [`Refused`], with what to answer.
    #[inline]
    pub fn try_admit_at(&self, tenant: &Card, class: ClassNo, moment: Instant) -> Result<Permit, Refused> {
        let mut permit = self.enter_at(tenant, class, moment)?;
        if !permit.gate.try_sit() {
            let after = permit.gate.time_for(u64::from(permit.gate.waiting()) + 1);
            return Err(self.refused(tenant, class, Why::Full, after));
        }
        permit.held |= held::SEAT;
        Ok(permit)
    }

    /// Decides, and waits in line for a full cell when it is worth it.
    ///
    /// # Errors
    /// [`Refused`], with what to answer.
    pub async fn admit(&self, tenant: &Card, class: ClassNo) -> Result<Permit, Refused> {
        let mut permit = self.enter_at(tenant, class, Instant::now())?;
        self.sit(&mut permit, tenant).await?;
        Ok(permit)
    }

    /// Decides at once on everything but a seat in the cell, which is [`Admission::sit`]'s: for who has something to do between the two. The clock was
    /// read a moment ago and nothing was waited for since: what was waited for would count as the cell's time, and a rate does not know of
    /// what came in between.
    ///
    /// # Errors
    /// [`Refused`], with what to answer.
    #[inline]
    pub fn enter_at(&self, tenant: &Card, class: ClassNo, moment: Instant) -> Result<Permit, Refused> {
        self.enter(tenant, class, self.house.ticks.at(moment))
    }

    /// Takes a seat in the cell for who has entered, and waits in line for one when it is worth it.
    ///
    /// # Errors
    /// [`Refused`], with what to answer.
    pub async fn sit(&self, permit: &mut Permit, tenant: &Card) -> Result<(), Refused> {
        if !permit.gate.try_sit() {
            let patience = self.house.config.max_wait_ms.min(tenant.plan.limits.request_timeout_ms);
            let patience = Duration::from_millis(patience.into());
            match Box::pin(permit.gate.sit(tenant.no, tenant.plan.tier.weight, patience)).await {
                Ok(seat) => seat.keep(),
                Err(no) => return Err(self.refused(tenant, permit.class, Why::Full, no.0)),
            }
            permit.started = self.house.ticks.now();
        }
        permit.held |= held::SEAT;
        Ok(())
    }

    /// The tenant of that slug, if there is one, is probably the next to ask: what is known of it is fetched into the processor's cache.
    #[inline]
    pub(crate) fn expect(&self, slug: &str) {
        let tallies = &self.house.tenants.tallies;
        tallies.expect(tallies.line(slug));
    }

    /// How things stand, cell by cell.
    #[must_use]
    pub fn cells(&self) -> Vec<CellLoad> {
        let load = |gate: &Gate| CellLoad {
            cell: gate.name.clone(),
            in_flight: gate.in_flight(),
            limit: gate.limit(),
            waiting: gate.waiting(),
            closed: gate.circuit.is_closed(),
        };
        self.house.gates.iter().map(|desks| load(desks.gate())).collect()
    }

    /// Bytes that tenants' states take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.house.tenants.bytes()
    }

    /// Everything but a seat.
    #[inline]
    fn enter(&self, tenant: &Card, class: ClassNo, now: Nanos) -> Result<Permit, Refused> {
        let house = &*self.house;
        let tallies = &house.tenants.tallies;
        let line = tallies.line(tenant.slug.as_str());
        // Fetched while cell and circuit are looked at, where nobody had it fetched before.
        tallies.expect(line);
        let gate = self.gate(tenant.cell());
        let mut permit = Permit { gate, tenant: tenant.no, started: now, spot: Spot::BEYOND, class, held: 0, told: false };
        match permit.gate.ask(now) {
            Verdict::Pass => {}
            Verdict::Probe => permit.held |= held::PROBE,
            Verdict::Refuse(after) => return Err(self.refused(tenant, class, Why::Open, Duration::from_nanos(after))),
        }
        let limits = &tenant.plan.limits;
        let (spot, tally) = tallies.find(line, tenant.no);
        permit.spot = spot;
        if !enter(&tally.in_flight, limits.max_concurrent_requests) {
            return Err(self.refused(tenant, class, Why::Concurrency(limits.max_concurrent_requests), SOON));
        }
        permit.held |= held::TENANT;
        let quota = Quota::new(limits.requests_per_second, limits.request_burst);
        let meter = Meter { tenant: tenant.no, class: ClassNo::DEFAULT };
        if class == ClassNo::DEFAULT {
            if !house.config.rates {
                return Ok(permit);
            }
            let taken = house.tenants.take(&tally.rate, meter, quota, now, 1);
            return taken.map(|()| permit).map_err(|wait| self.refused_by(tenant, class, Why::Rate(quota), wait));
        }
        let by_class = limits.route_classes.get(house.classes.name(class)).copied().unwrap_or_default();
        self.enter_class(&mut permit, tenant, by_class)?;
        if !house.config.rates {
            return Ok(permit);
        }
        let taken = house.tenants.take(&tally.rate, meter, quota, now, by_class.cost);
        taken.map_err(|wait| self.refused_by(tenant, class, Why::Rate(quota), wait))?;
        if let Err((own, wait)) = self.take_class(tenant, class, by_class, now) {
            tally.rate.refund(quota, by_class.cost);
            return Err(self.refused_by(tenant, class, Why::ClassRate(own), wait));
        }
        Ok(permit)
    }

    /// The class's places: the tenant's own, and those of the cell.
    fn enter_class(&self, permit: &mut Permit, tenant: &Card, limits: ClassLimits) -> Result<(), Refused> {
        let class = permit.class;
        if let Some(most) = limits.max_concurrent_requests {
            if !enter(&self.house.tenants.class(tenant.no, class).in_flight, most) {
                return Err(self.refused(tenant, class, Why::ClassConcurrency(most), SOON));
            }
            permit.held |= held::CLASS;
        }
        if !enter(&permit.gate.classes[class.index()], self.house.classes.bulkhead(class)) {
            return Err(self.refused(tenant, class, Why::Bulkhead, SOON));
        }
        permit.held |= held::BULKHEAD;
        Ok(())
    }

    fn take_class(&self, tenant: &Card, class: ClassNo, limits: ClassLimits, now: Nanos) -> Result<(), (Quota, Wait)> {
        let Some(rate) = limits.requests_per_second else { return Ok(()) };
        let quota = Quota::new(rate, limits.request_burst.unwrap_or(rate));
        let (tenants, meter) = (&self.house.tenants, Meter { tenant: tenant.no, class });
        tenants.take(&tenants.class(tenant.no, class).rate, meter, quota, now, 1).map_err(|wait| (quota, wait))
    }

    #[inline]
    fn gate(&self, cell: &CellName) -> Arc<Desk> {
        let house = &self.house;
        let make = || Gate::new(cell.clone(), &house.config, Arc::clone(&house.tenants), house.ticks.clone());
        house.gates.of(cell, make).mine()
    }

    #[cold]
    fn refused_by(&self, tenant: &Card, class: ClassNo, why: Why, wait: Wait) -> Refused {
        self.refused(tenant, class, why, Duration::from_nanos(wait.after))
    }

    #[cold]
    fn refused(&self, tenant: &Card, class: ClassNo, why: Why, retry_after: Duration) -> Refused {
        let class = self.house.classes.name(class).to_owned();
        metrics::counter!("insula_admission_refused_total",
            "reason" => why.name(), "tier" => tenant.plan.tier.name.clone(), "class" => class.clone())
        .increment(1);
        Refused { why, class, retry_after }
    }
}

impl Default for Admission {
    /// By [`AdmissionConfig::default`] and the machine's clock.
    fn default() -> Self {
        Self::by(AdmissionConfig::default(), Classes::default(), Ticks::machine())
    }
}

/// When somebody will have finished: nobody knows, and the header has whole seconds.
const SOON: Duration = Duration::from_secs(1);
