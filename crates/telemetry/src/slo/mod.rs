//! Service level objectives and how fast their error budgets burn.
//!
//! An objective says which share of requests must be good; the rest is its budget. A burn rate of 1 spends exactly the budget; 14.4 over an hour spends
//! a month's in two days (Beyer et al., "The Site Reliability Workbook", ch. 5: alert on a long and a short window together). Per tier as metrics
//! (`insula_slo_burn_rate`), per named tenant at the admin port alone: a tenant's name is no label. Always: counting is two atomic
//! additions at most; windows are of this process and begin with it.

pub mod objectives;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

pub use objectives::{Objective, Objectives};
pub use window::Tally;

pub(crate) use window::STEP;
use window::{Ring, WINDOWS};

/// Tiers that are told apart; others after that are not measured.
const MOST_TIERS: usize = 64;

/// The objectives of this process and what became of them. Clones share it.
#[derive(Clone, Debug)]
pub struct Slo(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objectives: Objectives,
    /// By slug: made at the start, so that a request looks without a lock.
    tenants: HashMap<String, Arc<Tally>>,
    tiers: Mutex<BTreeMap<String, Arc<Tally>>>,
    rings: Mutex<Rings>,
}

#[derive(Debug, Default)]
struct Rings {
    tiers: BTreeMap<String, Ring>,
    tenants: BTreeMap<String, Ring>,
}

/// How one objective stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// `availability` or `latency`.
    pub objective: &'static str,
    /// Percent of requests that must be good.
    pub target: f64,
    /// By window: how many times faster than allowed the budget goes.
    pub burn: BTreeMap<&'static str, f64>,
    /// By window: requests seen.
    pub requests: BTreeMap<&'static str, u64>,
}

/// What `/slo` answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    /// By tier.
    pub tiers: BTreeMap<String, Vec<Standing>>,
    /// By slug, those that the configuration names.
    pub tenants: BTreeMap<String, Vec<Standing>>,
}

impl Default for Slo {
    fn default() -> Self {
        Self::new(Objectives::default())
    }
}

impl Slo {
    /// Measures against these.
    #[must_use]
    pub fn new(objectives: Objectives) -> Self {
        let tenants = objectives.tenants.keys().map(|slug| (slug.clone(), Arc::default())).collect();
        Self(Arc::new(Inner { objectives, tenants, tiers: Mutex::default(), rings: Mutex::default() }))
    }

    /// The tally of a tier, to keep; `None` when there are too many.
    #[must_use]
    pub fn tier(&self, tier: &str) -> Option<Arc<Tally>> {
        let mut tiers = lock(&self.0.tiers);
        if let Some(tally) = tiers.get(tier) {
            return Some(tally.clone());
        }
        (tiers.len() < MOST_TIERS).then(|| tiers.entry(tier.to_owned()).or_default().clone())
    }

    /// The latency above which a request of the tier is a slow one.
    #[must_use]
    pub fn slow(&self, tier: &str) -> Duration {
        self.0.objectives.tier(tier).slow()
    }

    /// Counts a request for its tenant, if that one is named.
    pub(crate) fn count_tenant(&self, slug: &str, bad: bool, took: Duration) {
        if self.0.tenants.is_empty() {
            return;
        }
        if let (Some(tally), Some(objective)) = (self.0.tenants.get(slug), self.0.objectives.tenants.get(slug)) {
            tally.count(bad, took > objective.slow());
        }
    }

    /// Takes what was counted since the last time into the windows. To be called every [`STEP`].
    pub(crate) fn step(&self) {
        let tiers = lock(&self.0.tiers).clone();
        let mut rings = lock(&self.0.rings);
        for (tier, tally) in tiers {
            let ring = rings.tiers.entry(tier.clone()).or_default();
            ring.push(tally.take());
            for standing in standings(ring, self.0.objectives.tier(&tier)) {
                for (window, burn) in standing.burn {
                    metrics::gauge!("insula_slo_burn_rate", "tier" => tier.clone(), "objective" => standing.objective, "window" => window)
                        .set(burn);
                }
            }
        }
        for (slug, tally) in &self.0.tenants {
            rings.tenants.entry(slug.clone()).or_default().push(tally.take());
        }
    }

    /// How all objectives stand, as of the last step.
    #[must_use]
    pub fn view(&self) -> View {
        let rings = lock(&self.0.rings);
        let objectives = &self.0.objectives;
        let of_tenant = |slug: &String| objectives.tenants.get(slug).copied().unwrap_or_default();
        View {
            tiers: rings.tiers.iter().map(|(tier, ring)| (tier.clone(), standings(ring, objectives.tier(tier)))).collect(),
            tenants: rings.tenants.iter().map(|(slug, ring)| (slug.clone(), standings(ring, of_tenant(slug)))).collect(),
        }
    }
}

fn standings(ring: &Ring, objective: Objective) -> Vec<Standing> {
    let kinds = [("availability", objective.availability), ("latency", objective.latency)];
    let mut standings =
        kinds.map(|(name, target)| Standing { objective: name, target, burn: BTreeMap::new(), requests: BTreeMap::new() });
    for (window, steps) in WINDOWS {
        let sum = ring.sum(steps);
        for (standing, bad) in standings.iter_mut().zip([sum.bad, sum.slow]) {
            standing.burn.insert(window, burn(bad, sum.requests, standing.target));
            standing.requests.insert(window, sum.requests);
        }
    }
    standings.into()
}

/// The share of bad requests over the share that may be bad.
fn burn(bad: u64, requests: u64, target: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "requests of hours")]
    let share = bad as f64 / requests.max(1) as f64;
    (share / (1.0 - target / 100.0) * 1000.0).round() / 1000.0
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_burn_by_tier_and_for_named_tenants() {
        let text = "[tiers.gold]\navailability = 99.0\n[tenants.acme]\nslow_ms = 10\nlatency = 90.0\n";
        let slo = Slo::new(Objectives::parse(text).unwrap());
        let gold = slo.tier("gold").unwrap();
        for no in 0..1000 {
            gold.count(no % 100 < 2, false);
            slo.count_tenant("acme", false, Duration::from_millis(if no % 2 == 0 { 50 } else { 5 }));
            slo.count_tenant("other", true, Duration::ZERO);
        }
        slo.step();
        let view = slo.view();
        // 2% bad where 1% may be.
        assert_eq!(view.tiers["gold"][0].burn["5m"], 2.0);
        assert_eq!(view.tiers["gold"][1].burn["6h"], 0.0);
        // Half slow where a tenth may be.
        assert_eq!((view.tenants["acme"][1].burn["1h"], view.tenants["acme"][1].requests["1h"]), (5.0, 1000));
        assert_eq!(view.tenants.len(), 1);
        // Five minutes on, the short window has forgotten.
        for _ in 0..30 {
            slo.step();
        }
        let view = slo.view();
        assert_eq!((view.tiers["gold"][0].burn["5m"], view.tiers["gold"][0].burn["30m"]), (0.0, 2.0));
    }
}
