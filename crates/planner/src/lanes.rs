//! Whose job runs next: start-time fair queueing (Goyal, Vin, Cheng 1996) over lanes, one lane for each tenant with work.
//!
//! For: work that waits long, is capped and rated, and whose cost is only known when it is over. Not for: requests that wait in
//! memory for one served thing (`queue`), leases, or storage: `insula.work()` of the SQL kit carries the same arithmetic out on
//! rows, and a test of `insula-jobs` holds the two together.
//! Always:
//! - no slot stays idle while a job may run (work-conserving);
//! - a tenant whose lane was idle waits, with W workers, at most the sum of one job of each active lane divided by W, and the rest
//!   of one that runs, whatever any backlog: it starts at the virtual present, and everybody who is served leaves the present;
//! - among lanes with work, service (cost declared, corrected by the measured) is in proportion to weight;
//! - inside a lane, the higher priority first, then the older; a kind at its cap or rate holds up no other kind;
//! - choosing costs O(log lanes), whatever the backlog.

use std::collections::{BTreeMap, BTreeSet};

use insula_core::TenantNo;

/// Virtual time of one unit of cost at weight 1. Divided by weights: with room for exact fractions of the small ones.
pub const UNIT: u64 = 5_040 * 16;

/// A kind of job, as the caller numbers them.
pub type Kind = u32;

/// What holds for one kind in each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindRules {
    /// Most jobs of the kind that one tenant may have running.
    pub cap: u32,
    /// Shortest time between two starts of one tenant, in the caller's time; 0 when there is none.
    pub interval: u64,
}

impl Default for KindRules {
    fn default() -> Self {
        Self { cap: u32::MAX, interval: 0 }
    }
}

/// What holds for one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneRules {
    /// Its share among lanes with work.
    pub weight: u32,
    /// Most jobs that it may have running.
    pub cap: u32,
}

impl Default for LaneRules {
    fn default() -> Self {
        Self { weight: 1, cap: u32::MAX }
    }
}

/// A job that was chosen. Given back to [`Lanes::finish`] when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started<J> {
    /// Whose.
    pub tenant: TenantNo,
    /// Of what kind.
    pub kind: Kind,
    /// What its lane was charged.
    pub cost: u32,
    /// The job.
    pub job: J,
}

#[derive(Debug)]
struct Sort<J> {
    /// By rank (lower is sooner) and order of arrival.
    waiting: BTreeMap<(i16, u64), (u32, J)>,
    running: u32,
    /// When the rate allows the next.
    next: u64,
    /// Whether it stands in `paced`, until then.
    paced: bool,
}

#[derive(Debug)]
struct Lane<J> {
    rules: LaneRules,
    /// Start tag of its next job.
    start: u64,
    /// Whether it stands in `ready`.
    ready: bool,
    running: u32,
    kinds: BTreeMap<Kind, Sort<J>>,
    /// First jobs of kinds that may run: (rank, order, kind).
    heads: BTreeSet<(i16, u64, Kind)>,
}

/// All lanes of one queue.
#[derive(Debug)]
pub struct Lanes<J> {
    /// Virtual present: the start tag of the last chosen job.
    present: u64,
    order: u64,
    lanes: BTreeMap<TenantNo, Lane<J>>,
    kinds: BTreeMap<Kind, KindRules>,
    ready: BTreeSet<(u64, TenantNo)>,
    /// (when, tenant, kind) of kinds that wait for their rate.
    paced: BTreeSet<(u64, TenantNo, Kind)>,
}

impl<J> Default for Lanes<J> {
    fn default() -> Self {
        let (lanes, kinds) = (BTreeMap::new(), BTreeMap::new());
        Self { present: 0, order: 0, lanes, kinds, ready: BTreeSet::new(), paced: BTreeSet::new() }
    }
}

impl<J> Lanes<J> {
    /// What holds for a kind from now on.
    pub fn rule_kind(&mut self, kind: Kind, rules: KindRules) {
        self.kinds.insert(kind, rules);
    }

    /// What holds for a tenant from now on.
    pub fn rule_lane(&mut self, tenant: TenantNo, rules: LaneRules) {
        self.lane(tenant).rules = LaneRules { weight: rules.weight.max(1), ..rules };
        self.settle(tenant);
    }

    /// A job joins its lane. Higher `priority` is sooner; `cost` in units, at least one.
    pub fn add(&mut self, tenant: TenantNo, kind: Kind, priority: i16, cost: u32, job: J) {
        self.order += 1;
        let key = (priority.saturating_neg(), self.order);
        let sort = self.lane(tenant).kinds.entry(kind).or_insert_with(Sort::new);
        sort.waiting.insert(key, (cost.max(1), job));
        self.refresh(tenant, kind);
        self.settle(tenant);
    }

    /// The next job to start, at a moment of the caller's time.
    pub fn take(&mut self, now: u64) -> Option<Started<J>> {
        self.wake(now);
        let (start, tenant) = *self.ready.first()?;
        self.present = self.present.max(start);
        let lane = self.lanes.get_mut(&tenant)?;
        let (rank, order, kind) = *lane.heads.first()?;
        let rules = self.kinds.get(&kind).copied().unwrap_or_default();
        let sort = lane.kinds.get_mut(&kind)?;
        let (cost, job) = sort.waiting.remove(&(rank, order))?;
        sort.running += 1;
        sort.next = now.max(sort.next) + rules.interval;
        if sort.next > now {
            sort.paced = true;
            self.paced.insert((sort.next, tenant, kind));
        }
        lane.heads.remove(&(rank, order, kind));
        lane.running += 1;
        self.ready.remove(&(lane.start, tenant));
        lane.ready = false;
        lane.start = start + UNIT * u64::from(cost) / u64::from(lane.rules.weight);
        self.refresh(tenant, kind);
        self.settle(tenant);
        Some(Started { tenant, kind, cost, job })
    }

    /// A job is over. `measured` is what it turned out to cost: the difference is made up for.
    pub fn finish(&mut self, over: &Started<impl Sized>, measured: u32) {
        let (tenant, kind) = (over.tenant, over.kind);
        let Some(lane) = self.lanes.get_mut(&tenant) else { return };
        lane.running = lane.running.saturating_sub(1);
        if let Some(sort) = lane.kinds.get_mut(&kind) {
            sort.running = sort.running.saturating_sub(1);
        }
        if lane.ready {
            self.ready.remove(&(lane.start, tenant));
            lane.ready = false;
        }
        let weight = u64::from(lane.rules.weight);
        let (charged, measured) = (UNIT * u64::from(over.cost) / weight, UNIT * u64::from(measured.max(1)) / weight);
        // Never into the past: what nobody else wanted is not saved up.
        lane.start = (lane.start + measured).saturating_sub(charged).max(self.present.min(lane.start));
        self.refresh(tenant, kind);
        self.settle(tenant);
    }

    /// The earliest moment at which a rate lets something run that may not now.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.paced.first().map(|(when, ..)| *when)
    }

    /// Lanes from which a job may start now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    fn lane(&mut self, tenant: TenantNo) -> &mut Lane<J> {
        self.lanes.entry(tenant).or_insert_with(Lane::new)
    }

    fn wake(&mut self, now: u64) {
        while let Some((when, tenant, kind)) = self.paced.first().copied()
            && when <= now
        {
            self.paced.remove(&(when, tenant, kind));
            if let Some(sort) = self.lanes.get_mut(&tenant).and_then(|lane| lane.kinds.get_mut(&kind)) {
                sort.paced = false;
            }
            self.refresh(tenant, kind);
            self.settle(tenant);
        }
    }

    /// Puts the first job of a kind among its lane's heads, or takes it out, by cap and rate.
    fn refresh(&mut self, tenant: TenantNo, kind: Kind) {
        let rules = self.kinds.get(&kind).copied().unwrap_or_default();
        let Some(lane) = self.lanes.get_mut(&tenant) else { return };
        let Some(sort) = lane.kinds.get(&kind) else { return };
        lane.heads.retain(|(.., of)| *of != kind);
        let free = sort.running < rules.cap && !sort.paced;
        if let (true, Some(((rank, order), _))) = (free, sort.waiting.first_key_value()) {
            lane.heads.insert((*rank, *order, kind));
        }
    }

    /// Puts a lane where it belongs: among the ready, or not.
    fn settle(&mut self, tenant: TenantNo) {
        let Some(lane) = self.lanes.get_mut(&tenant) else { return };
        let may = !lane.heads.is_empty() && lane.running < lane.rules.cap;
        match (lane.ready, may) {
            (false, true) => {
                lane.start = lane.start.max(self.present);
                self.ready.insert((lane.start, tenant));
            }
            (true, false) => {
                self.ready.remove(&(lane.start, tenant));
            }
            _ => {}
        }
        lane.ready = may;
    }
}

impl<J> Lane<J> {
    const fn new() -> Self {
        let rules = LaneRules { weight: 1, cap: u32::MAX };
        Self { rules, start: 0, ready: false, running: 0, kinds: BTreeMap::new(), heads: BTreeSet::new() }
    }
}

impl<J> Sort<J> {
    const fn new() -> Self {
        Self { waiting: BTreeMap::new(), running: 0, next: 0, paced: false }
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
