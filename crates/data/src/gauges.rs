//! What the pools look like, for whoever scrapes: by cell, tier and kind of server, never by tenant.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::pools::Pools;

/// Cell, and whether on its own server or on a replica.
type Place = (String, &'static str);

/// Sets the gauges from the ledgers as they are now.
pub(crate) fn record(pools: &Pools) {
    let mut tiers: BTreeMap<(Place, String), (u32, usize)> = BTreeMap::new();
    let mut idle: BTreeMap<Place, usize> = BTreeMap::new();
    for pool in pools.all() {
        let place = (pool.key.cell.to_string(), if pool.standby.is_some() { "replica" } else { "primary" });
        *idle.entry(place.clone()).or_default() += pool.idle_count();
        for (tier, in_use, waiting) in pool.turnstile.share().tiers() {
            let sum = tiers.entry((place.clone(), tier.to_string())).or_default();
            *sum = (sum.0 + in_use, sum.1 + waiting);
        }
    }
    for ((place, tier), (in_use, waiting)) in tiers {
        gauge("in_use", &place, &tier, f64::from(in_use));
        gauge("waiting", &place, &tier, u32::try_from(waiting).map_or(f64::MAX, f64::from));
    }
    for (place, idle) in idle {
        gauge("idle", &place, "", u32::try_from(idle).map_or(f64::MAX, f64::from));
    }
    metrics::gauge!("insula_data_connections_open").set(f64::from(pools.open()));
    replicas(pools);
}

fn gauge(state: &'static str, (cell, server): &Place, tier: &str, value: f64) {
    let (cell, tier) = (cell.clone(), tier.to_owned());
    metrics::gauge!("insula_data_connections", "state" => state, "cell" => cell, "tier" => tier, "server" => *server).set(value);
}

/// How far behind each replica may be, and where the reads went that might have gone to one.
fn replicas(pools: &Pools) {
    for (name, group) in pools.standbys.all() {
        let cell = name.to_string();
        for standby in group.all() {
            // Not a number while nobody wants to know.
            let stale = match standby.proof() {
                Some(proof) => proof.shows.elapsed().as_secs_f64(),
                None if standby.is_watched() => f64::INFINITY,
                None => f64::NAN,
            };
            let replica = standby.address.to_string();
            metrics::gauge!("insula_replica_staleness_seconds", "cell" => cell.clone(), "replica" => replica).set(stale);
        }
        for (server, count) in [("replica", &group.counts.replica), ("primary", &group.counts.primary)] {
            let count = count.load(Ordering::Relaxed);
            metrics::counter!("insula_data_reads_total", "cell" => cell.clone(), "server" => server).absolute(count);
        }
    }
}
