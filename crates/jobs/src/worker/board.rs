//! How the queues stand that this worker serves, as metrics: by cell and tier, summed up over databases, which are too many to be labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use insula_core::CellName;
use metrics::gauge;

use super::DatabaseName;

/// What one queue looks like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Lanes by state.
    pub(crate) lanes: [(&'static str, i64); 4],
    /// By tier, how long the tenant has waited that was not served for longest, in seconds.
    pub(crate) oldest: BTreeMap<String, f64>,
    /// By tier, tenants with work that have waited for longer than their bound.
    pub(crate) starving: BTreeMap<String, u32>,
    /// Workers that serve it.
    pub(crate) workers: usize,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Board(Mutex<BTreeMap<CellName, Cell>>);

#[derive(Default)]
struct Cell {
    queues: BTreeMap<std::sync::Arc<str>, Standing>,
    /// That were shown.
    tiers: BTreeSet<String>,
}

impl Board {
    /// A queue looks so now.
    pub(crate) fn put(&self, name: &DatabaseName, standing: Standing) {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = cells.entry(name.cell.clone()).or_default();
        cell.queues.insert(name.database.clone(), standing);
        cell.show(&name.cell);
    }

    /// A queue is not served any more.
    pub(crate) fn forget(&self, name: &DatabaseName) {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get_mut(&name.cell) {
            cell.queues.remove(&name.database);
            cell.show(&name.cell);
        }
    }
}

impl Cell {
    #[allow(clippy::cast_precision_loss, reason = "figures for a dashboard")]
    fn show(&mut self, name: &CellName) {
        let mut lanes: BTreeMap<&'static str, i64> = BTreeMap::new();
        let (mut oldest, mut starving) = (BTreeMap::<&str, f64>::new(), BTreeMap::<&str, u32>::new());
        for queue in self.queues.values() {
            for (state, count) in queue.lanes {
                *lanes.entry(state).or_default() += count;
            }
            for (tier, seconds) in &queue.oldest {
                let known = oldest.entry(tier).or_default();
                *known = known.max(*seconds);
            }
            for (tier, tenants) in &queue.starving {
                *starving.entry(tier).or_default() += tenants;
            }
        }
        for (state, count) in lanes {
            gauge!("insula_jobs_lanes", "cell" => name.to_string(), "state" => state).set(count as f64);
        }
        let workers = self.queues.values().map(|queue| queue.workers).max().unwrap_or(0);
        gauge!("insula_jobs_workers", "cell" => name.to_string()).set(workers as f64);
        self.tiers.extend(oldest.keys().map(|tier| (*tier).to_owned()));
        // Tiers that nobody waits in any more, too.
        for tier in &self.tiers {
            let labels = [("cell", name.to_string()), ("tier", tier.clone())];
            gauge!("insula_jobs_oldest_wait_seconds", &labels).set(oldest.get(tier.as_str()).copied().unwrap_or(0.0));
            gauge!("insula_jobs_starving", &labels).set(f64::from(starving.get(tier.as_str()).copied().unwrap_or(0)));
        }
    }
}
