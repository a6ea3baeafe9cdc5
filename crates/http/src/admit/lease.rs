//! Several processes that share tenants' rates: each may let through its fraction by itself, and leases what the others leave.
//!
//! The fraction (plan's rate and burst over the number of processes) needs nobody. Who needs more asks, in the background, for a
//! lease of units ahead, from a pot that refills at the plan's rate and is charged with what anybody lets through of a tenant that
//! is *hot*: one that somebody wanted leases for of late. The fraction of a process that is silent stays out of the pot, because it
//! may be at work all the same. No request ever waits for this.
//!
//! Always: over any span, all processes together let through at most the plan's burst, what its rate gives, and what it gives in
//! [`SLACK`] more, plus one unit for each process; so it is too while some or all of them cannot reach the meeting place, when each goes on
//! with its fraction of the number that it knew last. Three things are beyond that bound: a process that is new and has not been there yet (it
//! starts with the fraction that its configuration says), one that is at work and silent for so long that the others count it as gone, and a
//! tenant whose slug changes, which each process gives its fraction of a burst anew.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use insula_core::TenantNo;
use insula_planner::gcra::{Nanos, Quota};

use super::Admission;
use super::class::ClassNo;
use super::tenant::{Meter, Tenants};
use super::ticks::Ticks;

/// Between two rounds of the exchange.
pub const ROUND: Duration = Duration::from_millis(100);
/// How long a lease lasts.
pub const LASTS: Duration = Duration::from_millis(300);
/// The rate of this time may pass beyond the plan.
pub const SLACK: Duration = Duration::from_secs(1);
/// A pot holds what the rate gives in this time, and one unit at least.
pub const POT: Duration = Duration::from_millis(250);
/// A process that is silent for longer may be at work without the others knowing what it lets through.
pub const SILENT: Duration = Duration::from_millis(350);
/// Rounds that may fail before what is spent is not told any more: by then the others have set the fraction aside.
const TELL: u32 = 4;
/// A pot is opened empty, and gives nothing for this time: by then all that are heard report what they let through.
pub const OPENING: Duration = Duration::from_millis(250);
/// Rounds after which a meter that nobody wanted leases for is not reported any more.
const FORGET: u32 = 30;
/// Most meters in one round: what is beyond waits for the next.
const MOST: usize = 10_000;

/// A meter as processes name it to each other: the tenant's number, and the class's name or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeterKey {
    /// The tenant.
    pub tenant: TenantNo,
    /// The class, empty for the tenant's own rate.
    pub class: String,
}

/// Somebody wants a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Of what.
    pub meter: MeterKey,
    /// Nanoseconds that a unit takes to come back, by the plan.
    pub interval: Nanos,
    /// The plan's burst.
    pub burst: u64,
    /// Units wanted.
    pub units: u32,
}

/// What a process tells the others in a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Units let through of hot meters without a lease.
    pub spent: Vec<(MeterKey, u32)>,
    /// Leases wanted.
    pub claims: Vec<Claim>,
}

/// What comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Award {
    /// Processes that are there, this one included.
    pub parties: u32,
    /// Units granted, in the order of the claims.
    pub granted: Vec<u32>,
    /// Meters that anybody wants leases for.
    pub hot: Vec<MeterKey>,
}

/// Where processes meet.
pub trait Exchange: Send + 'static {
    /// What goes wrong there.
    type Error: std::fmt::Display + Send;

    /// One round: hands in a report, takes home an award.
    fn round(&mut self, report: &Report) -> impl Future<Output = Result<Award, Self::Error>> + Send;

    /// Says goodbye: this process's fraction goes to the others at once. When it does not arrive, it goes after a while.
    fn leave(&mut self) -> impl Future<Output = ()> + Send;
}

/// One process's side of it: turns ledgers into reports and awards into leases. No I/O.
#[derive(Debug)]
pub struct Sharing {
    admission: Admission,
    /// Meters that are reported, with the rounds since somebody wanted them.
    hot: HashMap<Meter, u32>,
    /// Leases wanted and not yet granted in full, with the plan's quota.
    wants: Vec<(Meter, Quota)>,
    /// Of the last report, in its order.
    claimed: Vec<Meter>,
    /// Rounds that failed in a row.
    failed: u32,
    /// Spent since the last report, in its order.
    fresh: Vec<(Meter, u32)>,
    /// Spent before, and not told yet.
    backlog: HashMap<Meter, u32>,
}

impl Sharing {
    /// For an admission. From now on it lets through the fraction of `parties` only, until an award knows better.
    #[must_use]
    pub fn new(admission: Admission, parties: u32) -> Self {
        admission.tenants().parties.store(parties.max(1), Ordering::Relaxed);
        Self {
            admission,
            hot: HashMap::new(),
            wants: Vec::new(),
            claimed: Vec::new(),
            failed: 0,
            fresh: Vec::new(),
            backlog: HashMap::new(),
        }
    }

    /// What to tell the others.
    pub fn report(&mut self) -> Report {
        let tenants = Arc::clone(self.admission.tenants());
        let now = self.admission.ticks().now();
        let fresh = std::mem::take(&mut *tenants.wanting.lock().unwrap_or_else(PoisonError::into_inner));
        self.wants.extend(fresh);
        let round = self.wants.split_off(self.wants.len().saturating_sub(MOST));
        let mut report = Report::default();
        self.claimed.clear();
        for (meter, quota) in round {
            let ledger = tenants.ledger(meter);
            let wanted = ledger.wanted.swap(0, Ordering::Relaxed);
            // What it will want until the next round, and half as much again; what is left of the last lease counts.
            let enough = u64::from(wanted).saturating_mul(3) / 2 + 1;
            let units = enough.min(pot(quota)).saturating_sub(u64::from(ledger.leased(now)));
            self.hot.insert(meter, 0);
            self.claimed.push(meter);
            let units = u32::try_from(units).unwrap_or(u32::MAX);
            report.claims.push(Claim { meter: self.key(meter), interval: quota.interval(), burst: quota.burst(), units });
        }
        self.hot.retain(|_, rounds| {
            *rounds += 1;
            *rounds < FORGET
        });
        self.backlog.retain(|meter, _| self.hot.contains_key(meter));
        let spent = |meter: &Meter| (*meter, tenants.ledger(*meter).spent.swap(0, Ordering::Relaxed));
        self.fresh = self.hot.keys().map(spent).collect();
        for (meter, fresh) in &self.fresh {
            let spent = fresh.saturating_add(self.backlog.get(meter).copied().unwrap_or(0));
            if spent > 0 {
                report.spent.push((self.key(*meter), spent));
            }
        }
        report
    }

    /// Turns what came back into leases.
    pub fn apply(&mut self, award: &Award) {
        let tenants = Arc::clone(self.admission.tenants());
        let now = self.admission.ticks().now();
        tenants.parties.store(award.parties.max(1), Ordering::Relaxed);
        self.failed = 0;
        self.backlog.clear();
        let lapses = now + u64::try_from(LASTS.as_nanos()).unwrap_or(0);
        for (meter, units) in self.claimed.drain(..).zip(&award.granted) {
            if *units > 0 {
                tenants.ledger(meter).grant(*units, now, lapses);
            }
        }
        for key in &award.hot {
            let Some(meter) = self.meter(key) else { continue };
            if self.hot.insert(meter, 0).is_none() {
                // Spent before anybody wanted leases: nobody has counted on it.
                tenants.ledger(meter).spent.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Runs rounds until `stop`, and says goodbye. A round that fails changes nothing: leases lapse, and each goes on with its fraction.
    pub async fn run(mut self, mut exchange: impl Exchange, stop: impl Future<Output = ()> + Send) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        let mut away = false;
        loop {
            tokio::select! {
                () = &mut stop => return exchange.leave().await,
                _ = rounds.tick() => {}
            }
            let report = self.report();
            match exchange.round(&report).await {
                Ok(award) => {
                    if std::mem::replace(&mut away, false) {
                        tracing::info!(parties = award.parties, "limits are shared again");
                    }
                    self.apply(&award);
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        let parties = self.admission.tenants().parties.load(Ordering::Relaxed);
                        tracing::warn!(%error, parties, "limits cannot be shared just now: going on with the fair fraction");
                    }
                    self.give_up();
                }
            }
            metrics::gauge!("insula_limits_shared").set(if away { 0.0 } else { 1.0 });
        }
    }

    /// The report did not arrive: what was spent is to be told later, but for what the others set aside for a silent process.
    pub fn give_up(&mut self) {
        self.claimed.clear();
        self.failed = self.failed.saturating_add(1);
        if self.failed <= TELL {
            for (meter, fresh) in self.fresh.drain(..).filter(|(_, fresh)| *fresh > 0) {
                let told = self.backlog.entry(meter).or_default();
                *told = told.saturating_add(fresh);
            }
        }
    }

    fn key(&self, meter: Meter) -> MeterKey {
        let default = meter.class == ClassNo::DEFAULT;
        let class = if default { String::new() } else { self.admission.classes().name(meter.class).to_owned() };
        MeterKey { tenant: meter.tenant, class }
    }

    fn meter(&self, key: &MeterKey) -> Option<Meter> {
        let class = if key.class.is_empty() { ClassNo::DEFAULT } else { self.admission.classes().named(&key.class)? };
        Some(Meter { tenant: key.tenant, class })
    }
}

impl Admission {
    pub(crate) fn tenants(&self) -> &Arc<Tenants> {
        &self.house.tenants
    }

    pub(crate) fn ticks(&self) -> &Ticks {
        &self.house.ticks
    }
}

/// Units that a pot holds at most.
#[must_use]
pub fn pot(quota: Quota) -> u64 {
    let span = u64::try_from(POT.as_nanos()).unwrap_or(0);
    (span / quota.interval()).clamp(1, quota.burst())
}
