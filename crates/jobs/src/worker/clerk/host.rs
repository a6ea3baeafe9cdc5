//! Schedules of the host: computed, taken under the worker's lease, run on the application's runtime, tried again.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use insula_planner::again::Backoff;
use insula_planner::cron::{Cron, Zone};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::{Error, JobError};
use crate::host::{HostContext, HostSchedule, HostSide};
use crate::worker::desk::Desk;
use crate::worker::link::{HostDue, Link};
use crate::worker::state::Stop;

/// Tries of one firing.
const ATTEMPTS: i32 = 10;
/// The longest that one may take.
const LONGEST: Duration = Duration::from_secs(3_600);

/// A try that ended, or is to be said to have.
struct Ended {
    name: Arc<str>,
    attempt: i32,
    result: Result<(), JobError>,
}

/// What this session's worker runs for the host. Dropped, it stops.
#[derive(Default)]
pub(super) struct Hosting {
    kept: bool,
    at_work: JoinSet<Ended>,
    stops: HashMap<Arc<str>, watch::Sender<Option<Stop>>>,
    /// What could not be said yet.
    to_say: Vec<Ended>,
}

impl Hosting {
    /// Says what ended, takes what has come. The shortest time until there may be more, when that is known.
    pub(super) async fn host(&mut self, desk: &Arc<Desk>, me: i64, link: &mut Link) -> Result<(), Error> {
        let declared = desk.shared.jobs.host_schedules();
        if declared.is_empty() {
            return Ok(());
        }
        if !self.kept {
            let rows = declared.iter().map(|schedule| {
                json!({ "n": &*schedule.name, "c": schedule.cron.as_str(), "z": schedule.zone.text().unwrap_or("UTC") })
            });
            link.host_keep(&Value::Array(rows.collect())).await?;
            self.kept = true;
        }
        self.say(desk, me, link).await?;
        if desk.state().stopping {
            return Ok(());
        }
        let names: Vec<&str> = declared.iter().map(|schedule| &*schedule.name).collect();
        for due in link.host_due(&names).await? {
            let Some(schedule) = declared.iter().find(|schedule| *schedule.name == *due.name) else { continue };
            if due.next_us.is_none() {
                link.host_plan(&due.name, due.version, next(&due, due.since_us)).await?;
            } else if let Some((firing, attempt)) = link.host_take(me, &due.name, due.version, next(&due, due.now_us)).await? {
                metrics::counter!("insula_host_firings_total").increment(1);
                self.start(desk, schedule, firing, attempt);
            }
        }
        Ok(())
    }

    /// Says how those ended that have.
    async fn say(&mut self, desk: &Arc<Desk>, me: i64, link: &mut Link) -> Result<(), Error> {
        while let Some(ended) = self.at_work.try_join_next() {
            // One that was aborted says nothing; its lease ends with the session.
            self.to_say.extend(ended.ok());
        }
        while let Some(ended) = self.to_say.last() {
            let (error, retry) = match &ended.result {
                Ok(()) => (None, None),
                Err(JobError::Later { delay, reason }) => (Some(reason.clone()), Some(*delay)),
                Err(JobError::Retry(error)) if ended.attempt < ATTEMPTS => {
                    let random = u64::try_from(uuid::Uuid::now_v7().as_u128() & 0xffff).unwrap_or_default();
                    (Some(error.clone()), Some(Backoff::default().delay(u32::try_from(ended.attempt).unwrap_or(1), random)))
                }
                Err(JobError::Retry(error) | JobError::Dead(error)) => (Some(error.clone()), None),
            };
            if let Some(error) = &error {
                tracing::warn!(schedule = &*ended.name, attempt = ended.attempt, error, again = ?retry, "a schedule of the host did not go well");
                metrics::counter!("insula_host_failures_total").increment(1);
            }
            let retry = retry.map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX).min(3_600_000));
            link.host_end(me, &ended.name, ended.attempt, error.map(|error| error.replace('\0', " ")), retry).await?;
            self.stops.remove(&ended.name);
            self.to_say.pop();
        }
        desk.state().hosting = self.at_work.len();
        Ok(())
    }

    fn start(&mut self, desk: &Arc<Desk>, schedule: &HostSchedule, firing: chrono::DateTime<chrono::Utc>, attempt: i32) {
        let (stop, stopped) = watch::channel(None);
        self.stops.insert(schedule.name.clone(), stop);
        let shared = &desk.shared;
        let host = HostSide::new(
            shared.catalog.clone(),
            shared.keys.now().clone(),
            shared.config.authorities.clone(),
            shared.config.databases.clone(),
        );
        let name = schedule.name.clone();
        let context = HostContext {
            name: name.clone(),
            firing,
            attempt,
            host,
            data: shared.data.clone(),
            given: shared.jobs.given.clone(),
            stop: stopped,
        };
        let run = schedule.run.clone();
        // Also a handler that panics before it gives its future ends its try and nothing else.
        let work = async move { run(context).await };
        let work = async move {
            let result = match tokio::time::timeout(LONGEST, AssertUnwindSafe(work).catch_unwind()).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(JobError::Retry("it panicked".to_owned())),
                Err(_) => Err(JobError::Retry(format!("it took longer than {LONGEST:?}"))),
            };
            Ended { name, attempt, result }
        };
        self.at_work.spawn_on(work, &shared.runtime);
        desk.state().hosting = self.at_work.len();
    }
}

impl Drop for Hosting {
    fn drop(&mut self) {
        for stop in self.stops.values() {
            stop.send_replace(Some(Stop::Lost));
        }
    }
}

/// When it comes next after a moment; never, when what is declared there cannot be read.
fn next(due: &HostDue, after: i64) -> Option<i64> {
    let cron = Cron::parse(&due.cron).ok()?;
    cron.next(&Zone::find(&due.zone).ok()?, after)
}
