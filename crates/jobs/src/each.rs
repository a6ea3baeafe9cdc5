//! Work for each tenant: what code declares that every tenant has, and how tenants take turns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use insula_catalog::Route;
use insula_core::{FeatureValue, SystemClock};
use insula_planner::cron;
use serde_json::{Value, json};

use crate::enqueue::{body, millis, seconds, small};
use crate::error::Error;
use crate::job::Job;
use crate::schedules::{Cron, OffPeak, Zone, minute};

/// Whose turn is first when tenants take turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TierOrder {
    /// Tiers of greater weight first.
    #[default]
    HighestFirst,
    /// Tiers of less weight first: what may go wrong meets the fewest who pay the most.
    LowestFirst,
}

impl TierOrder {
    /// The place of a tier among those that there are, by weight in ascending order.
    pub(crate) fn place(self, weights: &[u32], weight: u32) -> usize {
        let place = weights.partition_point(|known| *known < weight);
        match self {
            Self::LowestFirst => place,
            Self::HighestFirst => weights.len().saturating_sub(place + 1),
        }
    }
}

/// How a schedule that every tenant has is spread over them. The default: all at their moment.
#[derive(Clone, Debug, Default)]
pub struct EachTenant {
    /// What falls together is spread over so long after the moment: tier after tier, evenly. A tenant keeps its place.
    pub spread: Duration,
    /// Which tier is first.
    pub order: TierOrder,
    /// Comes only in this window of the day, by the tenant's own clock.
    pub off_peak: Option<OffPeak>,
    /// Only for tenants whose plan has this feature, as a switch that is on or a number that is not 0.
    pub feature: Option<&'static str>,
    /// Of each job, among its tenant's (-1000 to 1000).
    pub priority: i16,
    /// A job that has not started when this has passed is a dead letter.
    pub deadline: Option<Duration>,
    /// Other than the kind's.
    pub attempts: Option<u32>,
    /// Other than the kind's.
    pub cost: Option<u32>,
    /// Other than the kind's.
    pub retention: Option<Duration>,
}

type Make = Arc<dyn Fn(&Route) -> Result<String, Error> + Send + Sync>;

/// A schedule that every tenant has.
#[derive(Clone)]
pub(crate) struct Declared {
    pub(crate) name: Arc<str>,
    kind: &'static str,
    cron: Cron,
    zone: Zone,
    options: EachTenant,
    make: Make,
}

impl Declared {
    pub(crate) fn new<J: Job>(
        name: &str,
        cron: Cron,
        zone: Zone,
        options: EachTenant,
        make: impl Fn(&Route) -> J + Send + Sync + 'static,
    ) -> Self {
        let make: Make = Arc::new(move |route| {
            // It runs where leases are renewed: a panic of the application's must not end that.
            let made = catch_unwind(AssertUnwindSafe(|| make(route)));
            body(&made.map_err(|_| Error::Options("what makes the job of a schedule panicked"))?)
        });
        Self { name: name.into(), kind: J::KIND, cron, zone, options, make }
    }

    /// Whether a tenant has it.
    pub(crate) fn is_for(&self, route: &Route) -> bool {
        self.options.feature.is_none_or(|feature| has(route, feature))
    }

    /// Its row for a tenant, and the mark of that. `weights`: of all tiers, ascending.
    pub(crate) fn row(&self, route: &Route, weights: &[u32]) -> Result<(Value, i64), Error> {
        let body: Value = serde_json::from_str(&(self.make)(route)?).map_err(|source| Error::Body { kind: self.kind, source })?;
        let options = &self.options;
        let tier = options.order.place(weights, route.plan.tier.weight);
        let shift = cron::spread(options.spread, tier, weights.len(), route.no);
        let mut row = json!({
            "t": route.no.get(), "n": &*self.name, "k": self.kind, "b": body, "c": self.cron.as_str(), "z": self.zone.text(),
            "l": route.settings.time_zone.as_str(), "of": options.off_peak.map(|window| minute(window.from())),
            "ot": options.off_peak.map(|window| minute(window.to())), "s": millis(shift), "r": -i32::from(options.priority),
            "a": options.attempts.map(small), "co": options.cost.map(small), "ke": options.retention.map(seconds),
            "d": options.deadline.map(millis),
        });
        let mark = mark(&row.to_string());
        if let Some(row) = row.as_object_mut() {
            row.insert("m".to_owned(), mark.into());
        }
        Ok((row, mark))
    }
}

/// Whether a tenant's plan has a feature.
pub(crate) fn has(route: &Route, feature: &str) -> bool {
    match route.plan.feature(feature, &SystemClock) {
        Some(FeatureValue::Switch(on)) => *on,
        Some(FeatureValue::Number(n)) => *n != 0,
        Some(FeatureValue::Word(_)) => true,
        None => false,
    }
}

/// FNV-1a: the same in every process and version. Never 0.
fn mark(text: &str) -> i64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    i64::from_le_bytes((hash | 1).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_have_their_place_either_way() {
        let weights = [1, 2, 4, 8];
        let places = |order: TierOrder| weights.map(|weight| order.place(&weights, weight));
        assert_eq!(places(TierOrder::HighestFirst), [3, 2, 1, 0]);
        assert_eq!(places(TierOrder::LowestFirst), [0, 1, 2, 3]);
        assert_eq!(TierOrder::HighestFirst.place(&[], 5), 0);
    }
}
