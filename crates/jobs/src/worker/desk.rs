//! One queue as this worker serves it: hands that end and take, a beat, a bell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use insula_catalog::Route;
use insula_core::TenantNo;
use metrics::{counter, gauge, histogram};
use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;

use super::bench::Task;
use super::clerk::{self, Clerk};
use super::hand;
use super::lanes::Settings;
use super::link::{Link, Taken};
use super::state::{End, State, Stop};
use super::watch::Watch;
use super::{DatabaseName, Reports, Shared};
use crate::error::Error;
use crate::registry::Entry;

/// One queue.
pub(crate) struct Desk {
    name: DatabaseName,
    /// Many tenants share the database: it is served all the time, and not visited.
    pub(crate) is_shared: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clerk: tokio::sync::Mutex<Clerk>,
    /// Outlives a visit, which is shorter than a lease: else nobody would be found out where one only visits.
    watch: tokio::sync::Mutex<Watch>,
    state: Mutex<State>,
    /// Something is to be said, or there is room.
    pub(crate) changed: Notify,
    /// Something came.
    pub(crate) bell: Notify,
}

impl Desk {
    pub(crate) fn new(name: DatabaseName, is_shared: bool, shared: Arc<Shared>) -> Self {
        let (changed, bell) = (Notify::new(), Notify::new());
        let (clerk, watch) = (tokio::sync::Mutex::default(), tokio::sync::Mutex::default());
        Self { name, is_shared, shared, clerk, watch, state: Mutex::default(), changed, bell }
    }

    pub(crate) const fn name(&self) -> &DatabaseName {
        &self.name
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until told to stop. A visitor's desk comes and goes, so that idle databases have no connections.
    pub(crate) async fn serve(self: Arc<Self>, visitors: Option<Arc<Semaphore>>, mut stopping: watch::Receiver<bool>) {
        let mut pause = Duration::from_millis(100);
        while !*stopping.borrow() {
            let permit = match &visitors {
                Some(visitors) => visitors.clone().acquire_owned().await.ok(),
                None => None,
            };
            let served = self.session(visitors.is_some(), &mut stopping).await;
            drop(permit);
            let rest = match served {
                Ok(()) if visitors.is_some() => self.shared.config.visit,
                Ok(()) => Duration::ZERO,
                Err(error) => {
                    counter!("insula_jobs_queue_faults_total").increment(1);
                    tracing::warn!(%error, cell = %self.name.cell, database = %self.name.database, "a queue cannot be served now");
                    pause = (pause * 2).min(Duration::from_secs(10));
                    pause
                }
            };
            let _ = tokio::time::timeout(rest, stopping.wait_for(|stop| *stop)).await;
        }
    }

    /// Under one number of the database's: from its beginning to its end, or to a fault.
    async fn session(self: &Arc<Self>, visiting: bool, stopping: &mut watch::Receiver<bool>) -> Result<(), Error> {
        let config = &self.shared.config;
        let mut control = Link::open(&self.shared, &self.name).await?;
        let lease_ms = i32::try_from(config.lease.as_millis()).unwrap_or(i32::MAX);
        let me = control.begin(&config.name, lease_ms).await?;
        {
            let mut state = self.state();
            *state = State {
                me,
                beaten: Some(Instant::now()),
                budgets: std::mem::take(&mut state.budgets),
                looking: visiting,
                ..State::default()
            };
        }
        let mut hands = tokio::task::JoinSet::new();
        hands.spawn(clerk::serve(self.clone(), me, visiting));
        hands.spawn(hand::work(self.clone(), me, hand::Part::Scout));
        if !visiting {
            hands.spawn(hand::work(self.clone(), me, hand::Part::Second));
            hands.spawn(hand::listen(self.clone()));
        }
        let ended = self.beat(&mut control, me, visiting, stopping).await;
        self.leave(&mut control, me, ended.is_ok()).await;
        hands.shutdown().await;
        if ended.is_ok() {
            // What hands could not say any more goes back by itself: the number ends.
            control.end(me).await?;
            control.close().await;
        }
        ended
    }

    /// Proves again and again that this worker lives. Ends well when it is to stop, or a visit is over.
    async fn beat(&self, control: &mut Link, me: i64, visiting: bool, stopping: &mut watch::Receiver<bool>) -> Result<(), Error> {
        let lease = self.shared.config.lease;
        let between = (lease / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
        let mut watch = self.watch.lock().await;
        let mut idle_since = None;
        loop {
            if tokio::time::timeout(between, stopping.wait_for(|stop| *stop)).await.is_ok() {
                return Ok(());
            }
            let (progress, corrections) = self.reports();
            let beat = tokio::time::timeout(lease / 2, control.beat(me, progress, corrections)).await;
            let Ok(Ok(Some(cancelled))) = beat else {
                // Given up by others, or not able to say that it lives: either way somebody else may soon have its jobs.
                self.state().stop_all(Stop::Lost);
                return match beat {
                    Ok(Err(error)) => Err(error.into()),
                    _ => Err(self.gone("the lease was lost")),
                };
            };
            {
                let mut state = self.state();
                state.beaten = Some(Instant::now());
                for job in cancelled {
                    if let Some(running) = state.running.get(&job) {
                        running.send_replace(Some(Stop::Cancelled));
                    }
                }
                let busy = state.looking || !state.held.is_empty() || state.to_say() > 0 || !state.dry;
                idle_since = if busy { None } else { idle_since.or_else(|| Some(Instant::now())) };
                gauge!("insula_jobs_running").set(self.shared.pulse.busy() as f64);
            }
            watch.look(control, me).await?;
            watch.count(control, self, &self.shared.tenants).await?;
            control.sweep().await?;
            if visiting && idle_since.is_some_and(|since: Instant| since.elapsed() > Duration::from_millis(500)) {
                return Ok(());
            }
        }
    }

    fn gone(&self, reason: &str) -> Error {
        Error::Unreachable {
            cell: self.name.cell.to_string(),
            database: self.name.database.to_string(),
            reason: reason.to_owned(),
        }
    }

    /// Gives back what was not started; in good order, waits for what runs, and for the hands to say how it ended.
    async fn leave(&self, control: &mut Link, me: i64, in_order: bool) {
        for task in self.shared.bench.withdraw(self) {
            let mut state = self.state();
            state.held.remove(&(task.job.tenant, task.job.id));
            state.end(&task.job, &End::Back { delay: Duration::ZERO });
        }
        self.state().stopping = true;
        self.changed.notify_waiters();
        if !in_order {
            self.state().me = 0;
            return;
        }
        let until = tokio::time::Instant::now() + self.shared.config.drain;
        let mut told = false;
        loop {
            let (running, to_say, taking) = {
                let state = self.state();
                (state.running.len() + state.hosting, state.to_say(), state.taking)
            };
            if running == 0 && to_say == 0 && taking == 0 {
                break;
            }
            let now = tokio::time::Instant::now();
            if now > until && !told {
                told = true;
                self.state().stop_all(Stop::Drained);
            }
            // Those that do not stop keep the process; their lease ends with it.
            if now > until + Duration::from_secs(2) {
                break;
            }
            self.changed.notify_one();
            let beat = control.beat(me, None, None).await;
            if !matches!(beat, Ok(Some(_))) {
                self.state().stop_all(Stop::Lost);
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.state().me = 0;
    }

    fn reports(&self) -> (Option<serde_json::Value>, Option<serde_json::Value>) {
        let mut state = self.state();
        let progress: Vec<_> = std::mem::take(&mut state.progress)
            .into_iter()
            .map(|((tenant, id), (attempt, said))| serde_json::json!({ "t": tenant, "i": id, "a": attempt, "p": said }))
            .collect();
        let corrections: Vec<_> = std::mem::take(&mut state.corrections)
            .into_iter()
            .filter(|(_, units)| *units != 0)
            .map(|(tenant, units)| serde_json::json!({ "t": tenant, "u": units }))
            .collect();
        state.budgets.retain(|_, budget| !budget.is_rested());
        let some = |list: Vec<serde_json::Value>| (!list.is_empty()).then(|| list.into());
        (some(progress), some(corrections))
    }

    /// A runner begins with a job. `None` when it may not: the lease it was taken under is not held any more.
    pub(crate) fn start(&self, me: i64, job: &Taken) -> Option<watch::Receiver<Option<Stop>>> {
        let mut state = self.state();
        let in_time = state.beaten.is_some_and(|beaten| beaten.elapsed() < self.shared.config.lease * 3 / 4);
        if state.me != me || !in_time {
            return None;
        }
        let (stop, stopped) = watch::channel(None);
        state.running.insert((job.tenant, job.id), stop);
        histogram!("insula_jobs_wait_seconds").record(job.waited_us as f64 / 1e6);
        Some(stopped)
    }

    /// Whether a job's lane does not know its bounds yet, so that more may have been taken than may run. It is told either way.
    pub(crate) fn hold_back(&self, job: &Taken, route: &Route, entry: Option<&Entry>) -> bool {
        let settings = Settings::of(route, &job.lane, entry);
        if settings.mark() == job.told {
            return false;
        }
        self.state().tell.insert((job.tenant, job.lane.clone()), settings);
        settings.is_bounded()
    }

    /// A runner is through with a job.
    pub(crate) fn ended(&self, me: i64, job: Taken, end: End, took: Duration) {
        let mut state = self.state();
        if state.me != me {
            return;
        }
        state.running.remove(&(job.tenant, job.id));
        state.held.remove(&(job.tenant, job.id));
        state.progress.remove(&(job.tenant, job.id));
        state.pace.ended();
        let outcome = match &end {
            End::Done(_) => "done",
            End::Retry { .. } => "retry",
            End::Dead(_) => "dead",
            End::Cancelled => "cancelled",
            End::Back { .. } => "back",
        };
        counter!("insula_jobs_total", "outcome" => outcome).increment(1);
        if !matches!(end, End::Back { .. }) {
            let units = i64::try_from(took.as_millis() / 10).unwrap_or(i64::MAX).max(1);
            if units != i64::from(job.cost) {
                *state.corrections.entry(job.tenant).or_default() += units - i64::from(job.cost);
            }
        }
        match end {
            End::Done(_) if job.keep == 0 => {
                if let Some(budget) = state.budgets.get_mut(&job.tenant) {
                    budget.earn();
                }
                state.done.push(job.tenant, job.id, job.attempt);
            }
            End::Retry { delay, error } => {
                let paid = state.budgets.entry(job.tenant).or_default().spend();
                let delay = if paid { delay } else { delay.max(Duration::from_secs(60)) };
                state.end(&job, &End::Retry { delay, error });
            }
            other => state.end(&job, &other),
        }
        let to_say = state.to_say();
        let quiet = state.running.is_empty();
        drop(state);
        // Not for each: hands look often enough while there is much to say.
        if to_say == 1 || to_say.is_multiple_of(64) || quiet {
            self.changed.notify_one();
        }
    }

    /// Puts what was taken before the runners.
    pub(crate) fn put(self: &Arc<Self>, me: i64, taken: Vec<Taken>) {
        let mut state = self.state();
        state.held.extend(taken.iter().map(|job| ((job.tenant, job.id), job.attempt)));
        drop(state);
        self.shared.bench.put(taken.into_iter().map(|job| Task { desk: self.clone(), me, job }));
    }
}

impl Reports for Desk {
    fn progress(&self, tenant: TenantNo, id: Uuid, attempt: i32, progress: serde_json::Value) {
        self.state().progress.insert((tenant.get(), id), (attempt, progress));
    }
}
