//! The clerk of a desk: looks after what comes again in one database.
//!
//! For: keeping there what code declares for its tenants, computing when schedules come next, firing them; sweeps; schedules of the host, where
//! the database is their anchor.
//! Not for: the jobs that come of it. Has a connection of its own, so that nothing it waits for keeps a beat waiting.
//! Always: any number of clerks may look after one database; what they do is compared in the database, and done once.

mod due;
mod host;
mod keep;
mod sweep;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_planner::cron::{Cron, CronError};

use super::desk::Desk;
use super::link::Link;
use crate::error::Error;
use crate::host::end_at;
use host::Hosting;
use keep::Kept;
use sweep::Sweeps;

/// How often it looks; a firing is late by as much at most.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause after faults, as of a database whose kit is older than this program.
const PAUSE: Duration = Duration::from_secs(30);
/// How often it keeps house.
const TIDY: Duration = Duration::from_secs(60);

/// What a clerk remembers from look to look.
#[derive(Default)]
pub(crate) struct Clerk {
    kept: Kept,
    sweeps: Sweeps,
    /// Sweeps that code declares are begun.
    begun: bool,
    tidied: Option<Instant>,
    /// When to look again.
    look_at: Option<Instant>,
    /// Patterns that were read.
    patterns: HashMap<String, Result<Cron, CronError>>,
}

impl Clerk {
    fn pattern(&mut self, text: &str) -> Result<Cron, CronError> {
        if let Some(known) = self.patterns.get(text) {
            return known.clone();
        }
        if self.patterns.len() >= 10_000 {
            self.patterns.clear();
        }
        let read = Cron::parse(text);
        self.patterns.insert(text.to_owned(), read.clone());
        read
    }
}

/// How long until it is to look after a database of one tenant.
pub(crate) async fn rest(desk: &Desk) -> Duration {
    let clerk = desk.clerk.lock().await;
    clerk.look_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
}

/// Looks again and again, until the desk's session is over; at a visit once, and only when it is time.
pub(crate) async fn serve(desk: Arc<Desk>, me: i64, visiting: bool) {
    let mut clerk = desk.clerk.lock().await;
    let mut link = None;
    let mut hosting = Hosting::default();
    let mut pause = LOOK;
    let is_time = clerk.look_at.is_none_or(|at| at <= Instant::now());
    while desk.state().me == me && (!visiting || is_time) {
        match look(&desk, me, &mut clerk, &mut hosting, &mut link).await {
            Ok(next) => {
                clerk.look_at = Some(Instant::now() + next);
                pause = LOOK;
                if visiting {
                    break;
                }
                tokio::time::sleep(next).await;
            }
            Err(error) => {
                link = None;
                tracing::warn!(%error, cell = %desk.name().cell, database = %desk.name().database, "schedules cannot be looked after now");
                metrics::counter!("insula_schedules_faults_total").increment(1);
                clerk.look_at = Some(Instant::now() + PAUSE);
                if visiting {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE);
            }
        }
    }
    if let Some(link) = link {
        link.close().await;
    }
}

/// One look. How long until the next.
async fn look(
    desk: &Arc<Desk>,
    me: i64,
    clerk: &mut Clerk,
    hosting: &mut Hosting,
    link: &mut Option<Link>,
) -> Result<Duration, Error> {
    if link.is_none() {
        *link = Some(Link::open(&desk.shared, desk.name()).await?);
    }
    let Some(link) = link else { return Ok(LOOK) };
    let jobs = &desk.shared.jobs;
    let is_anchor = desk.shared.anchor().as_ref() == Some(desk.name());
    let names: Vec<&str> = jobs.each().iter().map(|declared| &*declared.name).collect();
    if clerk.tidied.is_none_or(|tidied| tidied.elapsed() > TIDY) {
        link.schedules_tidy(&names).await?;
        link.sweeps_tidy().await?;
        if is_anchor {
            let names: Vec<&str> = jobs.host_schedules().iter().map(|schedule| &*schedule.name).collect();
            link.host_tidy(&names).await?;
        }
        clerk.tidied = Some(Instant::now());
    }
    // First, as others' lives may hang on it: what ended is not run again.
    if is_anchor {
        hosting.host(desk, me, link).await?;
    }
    clerk.kept.keep(desk, link).await?;
    due::fire(desk, clerk, link, &names).await?;
    if !clerk.begun {
        for mut row in jobs.sweeps().iter().cloned() {
            end_at(&mut row, &desk.shared.catalog);
            link.sweep_begin(&row).await?;
        }
        clerk.begun = true;
    }
    let sweep = clerk.sweeps.sweep(desk, link).await?;
    // In a database of one tenant as often as it is visited, unless something is known to come sooner.
    let most = if desk.passes_by { desk.shared.visits.longest() } else { LOOK };
    let next = link.schedules_next().await?.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
    // Not before it has come, by the database's clock.
    let next = next.map_or(most, |next| next + Duration::from_millis(1)).min(most);
    Ok(sweep.map_or(next, |sweep| sweep.min(next)))
}
