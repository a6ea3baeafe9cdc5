//! What the pools look like, for whoever scrapes: by cell and tier, never by tenant.

use std::collections::BTreeMap;

use crate::pools::Pools;

/// Sets the gauges from the ledgers as they are now.
pub(crate) fn record(pools: &Pools) {
    let mut tiers: BTreeMap<(String, String), (u32, usize)> = BTreeMap::new();
    let mut idle: BTreeMap<String, usize> = BTreeMap::new();
    for pool in pools.all() {
        let cell = pool.key.cell.to_string();
        *idle.entry(cell.clone()).or_default() += pool.idle_count();
        for (tier, in_use, waiting) in pool.turnstile.share().tiers() {
            let sum = tiers.entry((cell.clone(), tier.to_string())).or_default();
            *sum = (sum.0 + in_use, sum.1 + waiting);
        }
    }
    for ((cell, tier), (in_use, waiting)) in tiers {
        gauge("in_use", &cell, &tier, f64::from(in_use));
        gauge("waiting", &cell, &tier, u32::try_from(waiting).map_or(f64::MAX, f64::from));
    }
    for (cell, idle) in idle {
        gauge("idle", &cell, "", u32::try_from(idle).map_or(f64::MAX, f64::from));
    }
    metrics::gauge!("insula_data_connections_open").set(f64::from(pools.open()));
}

fn gauge(state: &'static str, cell: &str, tier: &str, value: f64) {
    metrics::gauge!("insula_data_connections", "state" => state, "cell" => cell.to_owned(), "tier" => tier.to_owned()).set(value);
}
