//! Watches the queue, and its other workers: by this process's own clock, which only goes forward: no jump of a wall clock, here or at the server, ends
//! a lease.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use insula_planner::bound::{Load, bound};

use super::board::Standing;
use super::desk::Desk;
use super::link::Link;
use super::tenants::Tenants;

/// When each worker was first seen at the beats that it has.
#[derive(Default)]
pub(crate) struct Watch {
    seen: HashMap<i64, (i64, Instant)>,
    looked: Option<Instant>,
    counted: Option<Instant>,
}

/// A wait is a starvation when it is longer than twice the bound and this: a queue is looked at now and then, and costs differ.
const GRACE: Duration = Duration::from_secs(5);

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

    /// Shows, now and then, how the queue stands: lanes by state, and by tier how long the tenant waits that was not served for longest, and who
    /// waits for longer than he may have to.
    pub(crate) async fn count(&mut self, link: &mut Link, desk: &Desk, tenants: &Tenants) -> Result<(), sqlx::Error> {
        let now = Instant::now();
        if self.counted.is_some_and(|counted| now - counted < Duration::from_secs(5)) {
            return Ok(());
        }
        self.counted = Some(now);
        let lines = link.queue_state().await?;
        let Some((.., ready, held, blocked, stopped)) = lines.first().copied() else { return Ok(()) };
        let lanes = [("ready", ready), ("held", held), ("blocked", blocked), ("stopped", stopped)];
        // One that is at work on it is this one.
        let mut standing = Standing { lanes, workers: self.seen.len() + 1, ..Standing::default() };
        let waiting = lines.iter().filter_map(|(tenant, waits, ..)| {
            let route = tenants.at((*tenant)?, desk.name()).ok()?;
            Some((route, Duration::from_millis(u64::try_from((*waits)?).unwrap_or_default())))
        });
        let waiting: Vec<_> = waiting.collect();
        let pulse = &desk.shared.pulse;
        let costs = pulse.costs();
        let load = Load {
            lanes: u64::try_from(ready).unwrap_or_default(),
            heaviest: waiting.iter().map(|(route, _)| route.plan.tier.weight).max().unwrap_or(1),
            mean: costs.mean,
            longest: costs.longest,
            places: pulse.places(),
            ahead: desk.shared.config.ahead + desk.shared.config.poll,
        };
        for (route, waits) in waiting {
            let tier = &route.plan.tier;
            let oldest = standing.oldest.entry(tier.name.clone()).or_default();
            *oldest = oldest.max(waits.as_secs_f64());
            if waits > bound(&load, tier.weight).saturating_mul(2).saturating_add(GRACE) {
                *standing.starving.entry(tier.name.clone()).or_default() += 1;
            }
        }
        desk.shared.board.put(desk.name(), standing);
        Ok(())
    }
}
