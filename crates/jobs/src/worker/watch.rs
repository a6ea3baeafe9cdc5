//! Watches the queue, and its other workers: by this process's own clock, which only goes forward: no jump of a wall clock, here or at the server, ends
//! a lease.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::link::Link;
use super::tenants::Tenants;

/// When each worker was first seen at the beats that it has.
#[derive(Default)]
pub(crate) struct Watch {
    seen: HashMap<i64, (i64, Instant)>,
    looked: Option<Instant>,
    counted: Option<Instant>,
    /// Tiers that were shown.
    tiers: std::collections::HashSet<String>,
}

impl Watch {
    /// Looks, now and then, and gives up who has not beaten for longer than its lease.
    pub(crate) async fn look(&mut self, link: &mut Link, me: i64) -> Result<(), sqlx::Error> {
        let now = Instant::now();
        let due = self.looked.is_none_or(|looked| now - looked > Duration::from_millis(200));
        if !due {
            return Ok(());
        }
        self.looked = Some(now);
        let workers = link.workers().await?;
        self.seen.retain(|no, _| workers.iter().any(|(known, ..)| known == no));
        for (no, lease_ms, beats) in workers.into_iter().filter(|(no, ..)| *no != me) {
            let lease = Duration::from_millis(u64::try_from(lease_ms).unwrap_or_default());
            let (known, since) = *self.seen.entry(no).or_insert((beats, now));
            if known != beats {
                self.seen.insert(no, (beats, now));
            } else if now - since > lease {
                let freed = link.bury(no, beats).await?;
                tracing::warn!(worker = no, freed, "gave up a worker that had not been heard of for longer than its lease");
                metrics::counter!("insula_jobs_workers_lost_total").increment(1);
            }
        }
        Ok(())
    }

    /// Shows, now and then, how the queue stands: lanes by state, and by tier how long the tenant waits that was not served for longest.
    pub(crate) async fn count(&mut self, link: &mut Link, desk: &Desk, tenants: &Tenants) -> Result<(), sqlx::Error> {
        let now = Instant::now();
        if self.counted.is_some_and(|counted| now - counted < Duration::from_secs(5)) {
            return Ok(());
        }
        self.counted = Some(now);
        let lines = link.queue_state().await?;
        let Some((.., ready, held, blocked, stopped)) = lines.first().copied() else { return Ok(()) };
        for (state, lanes) in [("ready", ready), ("held", held), ("blocked", blocked), ("stopped", stopped)] {
            metrics::gauge!("insula_jobs_lanes", "state" => state).set(lanes as f64);
        }
        let mut oldest: HashMap<String, i64> = HashMap::new();
        for (tenant, waits, ..) in lines {
            let (Some(tenant), Some(waits)) = (tenant, waits) else { continue };
            let Ok(route) = tenants.at(tenant, desk.name()) else { continue };
            let tier = oldest.entry(route.plan.tier.name.clone()).or_default();
            *tier = waits.max(*tier);
        }
        for tier in self.tiers.iter().filter(|tier| !oldest.contains_key(*tier)) {
            metrics::gauge!("insula_jobs_oldest_wait_seconds", "tier" => tier.clone()).set(0.0);
        }
        for (tier, waits) in oldest {
            metrics::gauge!("insula_jobs_oldest_wait_seconds", "tier" => tier.clone()).set(waits as f64 / 1_000.0);
            self.tiers.insert(tier);
        }
        Ok(())
    }
}
