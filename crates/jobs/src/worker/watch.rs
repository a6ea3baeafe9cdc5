//! Watches the other workers of a queue, by this process's own clock, which only goes forward: no jump of a wall clock, here or at the server, ends
//! a lease.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::link::Link;

/// When each worker was first seen at the beats that it has.
#[derive(Default)]
pub(crate) struct Watch {
    seen: HashMap<i64, (i64, Instant)>,
    looked: Option<Instant>,
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
}
