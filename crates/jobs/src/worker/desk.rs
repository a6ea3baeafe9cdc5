//! One queue as this worker serves it: hands that end and take, a beat, a bell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use insula_catalog::Route;
use insula_core::TenantNo;
use metrics::{counter, gauge, histogram};
use tokio::sync::{Notify, SemaphorePermit, watch};
use uuid::Uuid;

use super::bench::Task;
use super::clerk::{self, Clerk};
use super::hand;
use super::lanes::Settings;
use super::link::{Glance, Link, Taken};
use super::state::{End, State, Stop};
use super::visits::Room;
use super::watch::Watch;
use super::{DatabaseName, Reports, Shared};
use crate::error::Error;
use crate::registry::Entry;

/// One queue.
pub(crate) struct Desk {
    name: DatabaseName,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clerk: tokio::sync::Mutex<Clerk>,
    state: Mutex<State>,
    /// Something is to be said, or there is room.
    pub(crate) changed: Notify,
    /// Something came.
    pub(crate) bell: Notify,
    /// It is the database of a single tenant: see [`super::visits`].
    pub(crate) passes_by: bool,
}

/// How a visit begins.
struct Visit<'a> {
    first: First<'a>,
    watch: &'a mut Watch,
    room: Room<'a>,
}

/// What the connection that is opened first is for.
enum First<'a> {
    /// Beating.
    Control(Link),
    /// The bell has rung, and so there is work: the scout's. Others are opened once it has looked, because a log-in keeps this thread
    /// and the server busy for some milliseconds.
    Scout(Link, Option<SemaphorePermit<'a>>),
}

/// Until a second connection that was refused is asked for again.
const AGAIN: Duration = Duration::from_millis(100);

/// How long other connections wait for the scout's first look.
const LOOK: Duration = Duration::from_millis(100);

/// How long a database of a single tenant is stayed in when there is nothing to do: the next job of a tenant at work starts without a connection
/// being made first.
const LINGER: Duration = Duration::from_secs(5);

impl Desk {
    pub(crate) fn new(name: DatabaseName, passes_by: bool, shared: Arc<Shared>) -> Self {
        let (changed, bell) = (Notify::new(), Notify::new());
        Self { name, shared, clerk: tokio::sync::Mutex::default(), state: Mutex::default(), changed, bell, passes_by }
    }

    pub(crate) const fn name(&self) -> &DatabaseName {
        &self.name
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until told to stop.
    pub(crate) async fn serve(self: Arc<Self>, stopping: watch::Receiver<bool>) {
        if self.passes_by { self.pass_by(stopping).await } else { self.stay(stopping).await }
    }

    async fn stay(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut pause = Duration::from_millis(100);
        while !*stopping.borrow() {
            match self.session(None, &mut stopping).await {
                Ok(_) => pause = Duration::from_millis(100),
                Err(error) => {
                    pause = self.fault(&error, pause);
                    let _ = tokio::time::timeout(pause, stopping.wait_for(|stop| *stop)).await;
                }
            }
        }
    }

    /// Comes when the bell rings and now and then, and goes when there is nothing to do.
    async fn pass_by(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        // It outlives a visit, which is shorter than a lease: else nobody would be found out where one only visits.
        let (mut watch, mut calm, mut pause) = (Watch::default(), 0, Duration::from_millis(100));
        let mut rung = false;
        while !*stopping.borrow() {
            let rest = match self.visit(&mut watch, rung, &mut stopping).await {
                Ok((worked, glance)) => {
                    (calm, pause) = (if worked { 0 } else { calm + 1 }, Duration::from_millis(100));
                    let config = &self.shared.config;
                    let rest = self.shared.visits.rest(config.visit, calm, glance, config.lease);
                    rest.min(clerk::rest(&self).await)
                }
                Err(error) => {
                    pause = self.fault(&error, pause);
                    pause
                }
            };
            rung = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                () = self.bell.notified() => true,
                () = tokio::time::sleep(rest) => false,
            };
        }
    }

    /// Looks, and works while there is something to do. Whether there was, and what will be.
    async fn visit(
        self: &Arc<Self>,
        watch: &mut Watch,
        rung: bool,
        stopping: &mut watch::Receiver<bool>,
    ) -> Result<(bool, Glance), Error> {
        let visits = &self.shared.visits;
        if rung {
            let room = visits.room().await;
            let door = visits.door().await;
            let first = First::Scout(Link::open(&self.shared, &self.name).await?, door);
            let left = self.session(Some(Visit { first, watch, room }), stopping).await?;
            return Ok((true, left));
        }
        let door = visits.door().await;
        let mut control = Link::open(&self.shared, &self.name).await?;
        drop(door);
        // What comes again, when it is time for that: it may bring work.
        if clerk::rest(self).await.is_zero() {
            clerk::serve(self.clone(), 0, true).await;
        }
        if !control.glance().await?.work {
            // Nobody is here: whoever enqueues from now on rings, and what came before that is seen by one more look.
            control.away(true).await?;
            watch.look(&mut control, 0).await?;
            let glance = control.glance().await?;
            if !glance.work {
                control.close().await;
                return Ok((false, glance));
            }
        }
        let (first, room) = (First::Control(control), visits.room().await);
        let left = self.session(Some(Visit { first, watch, room }), stopping).await?;
        Ok((true, left))
    }

    fn fault(&self, error: &Error, pause: Duration) -> Duration {
        counter!("insula_jobs_queue_faults_total").increment(1);
        tracing::warn!(%error, cell = %self.name.cell, database = %self.name.database, "a queue cannot be served now");
        (pause * 2).min(Duration::from_secs(10))
    }

    /// Under one number of the database's: from its beginning to its end, or to a fault. How it left the queue.
    async fn session(self: &Arc<Self>, visit: Option<Visit<'_>>, stopping: &mut watch::Receiver<bool>) -> Result<Glance, Error> {
        let config = &self.shared.config;
        let mut own = Watch::default();
        let (mut first, watch, room) = match visit {
            Some(Visit { first, watch, room }) => (first, watch, Some(room)),
            None => (First::Control(Link::open(&self.shared, &self.name).await?), &mut own, None),
        };
        let lease_ms = i32::try_from(config.lease.as_millis()).unwrap_or(i32::MAX);
        let (First::Control(link) | First::Scout(link, _)) = &mut first;
        let me = link.begin(&config.name, lease_ms).await?;
        {
            let mut state = self.state();
            *state = State { me, beaten: Some(Instant::now()), budgets: std::mem::take(&mut state.budgets), ..State::default() };
        }
        let mut hands = tokio::task::JoinSet::new();
        let (looking, looked) = tokio::sync::oneshot::channel();
        let scout = |link| hand::work(self.clone(), me, hand::Part::Scout, link, Some(looking));
        let mut control = match first {
            First::Control(control) => {
                hands.spawn(scout(None));
                control
            }
            // The door stays open: to wait for one while the lease runs would be to lose it to those who stand in the doors.
            First::Scout(link, _door) => {
                hands.spawn(scout(Some(link)));
                let _ = tokio::time::timeout(LOOK.min(config.lease / 4), looked).await;
                match self.open_control().await {
                    Ok(control) => control,
                    Err(error) => {
                        // What was taken runs again elsewhere once the lease is over, so nothing of it may run here.
                        self.state().stop_all(Stop::Lost);
                        self.give_back();
                        self.state().me = 0;
                        hands.shutdown().await;
                        return Err(error);
                    }
                }
            }
        };
        hands.spawn(clerk::serve(self.clone(), me, false));
        if !self.passes_by {
            hands.spawn(hand::work(self.clone(), me, hand::Part::Second, None, None));
            hands.spawn(hand::listen(self.clone()));
        }
        let ended = self.beat(&mut control, me, watch, room.as_ref(), stopping).await;
        self.leave(&mut control, me, ended.is_ok()).await;
        hands.shutdown().await;
        ended?;
        // What hands could not say any more goes back by itself: the number ends.
        control.end(me).await?;
        let left = Glance { work: false, ..control.glance().await? };
        control.close().await;
        Ok(left)
    }

    /// While a lease is running already, and work: a server that has no place just now is asked again, for a quarter of the lease.
    async fn open_control(&self) -> Result<Link, Error> {
        let mut refused = None;
        let opening = async {
            loop {
                match Link::open(&self.shared, &self.name).await {
                    Ok(link) => return link,
                    Err(error) => refused = Some(error),
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let opened = tokio::time::timeout(self.shared.config.lease / 4, opening).await;
        opened.map_err(|_| refused.unwrap_or_else(|| self.gone("it did not let a second connection in")))
    }

    /// Proves again and again that this worker lives. Ends well when it is to stop, or a visit is over.
    async fn beat(
        &self,
        control: &mut Link,
        me: i64,
        watch: &mut Watch,
        room: Option<&Room<'_>>,
        stopping: &mut watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let lease = self.shared.config.lease;
        let between = (lease / 4).clamp(Duration::from_millis(20), Duration::from_secs(1));
        let (mut idle_since, mut takes) = (None, 0);
        loop {
            // Since the last one, however much of the lease has gone by meanwhile.
            let rest = between.saturating_sub(self.state().beaten.map_or(between, |beaten| beaten.elapsed()));
            if tokio::time::timeout(rest, stopping.wait_for(|stop| *stop)).await.is_ok() {
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
            let through = {
                let mut state = self.state();
                state.beaten = Some(Instant::now());
                for job in cancelled {
                    if let Some(running) = state.running.get(&job) {
                        running.send_replace(Some(Stop::Cancelled));
                    }
                }
                let busy = !state.held.is_empty() || state.taking > 0 || state.to_say() > 0 || !(state.dry || state.stopping);
                let was_busy = std::mem::replace(&mut takes, state.takes) != state.takes;
                idle_since = if busy || was_busy { None } else { idle_since.or_else(|| Some(Instant::now())) };
                gauge!("insula_jobs_running").set(self.shared.pulse.busy() as f64);
                gauge!("insula_jobs_longest_seconds").set(self.shared.pulse.costs().longest.as_secs_f64());
                state.stopping && !busy
            };
            watch.look(control, me).await?;
            watch.count(control, self, &self.shared.tenants).await?;
            control.sweep().await?;
            let Some(room) = room else { continue };
            if through || idle_since.is_some_and(|since: Instant| since.elapsed() > LINGER) {
                return Ok(());
            }
            if room.is_over() && !self.state().stopping {
                // What runs is waited for; the rest goes back, and nothing more is taken.
                self.give_back();
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
        self.give_back();
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

    /// Gives back what was not started, and takes nothing more.
    fn give_back(&self) {
        self.state().stopping = true;
        for task in self.shared.bench.withdraw(self) {
            let mut state = self.state();
            state.held.remove(&(task.job.tenant, task.job.id));
            state.end(&task.job, &End::Back { delay: Duration::ZERO });
        }
        self.changed.notify_waiters();
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
    /// `of_lane` is the kind that the lane is named after.
    pub(crate) fn hold_back(&self, job: &Taken, route: &Route, of_lane: Option<&Entry>) -> bool {
        let settings = Settings::of(route, of_lane);
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
            End::Moved { .. } => "moved",
        };
        counter!("insula_jobs_total", "outcome" => outcome).increment(1);
        if end.was_tried() {
            let units = i64::try_from(took.as_millis() / 10).unwrap_or(i64::MAX).max(1);
            if units != i64::from(job.cost) {
                *state.corrections.entry(job.tenant).or_default() += units - i64::from(job.cost);
            }
        }
        if let (End::Done(_), Some(budget)) = (&end, state.budgets.get_mut(&job.tenant)) {
            budget.earn();
        }
        match end {
            End::Done(_) if job.keep == 0 => state.done.push(job.tenant, job.id, job.attempt),
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
        state.takes += u64::from(!taken.is_empty());
        state.held.extend(taken.iter().map(|job| ((job.tenant, job.id), job.attempt)));
        drop(state);
        let tenants = &self.shared.tenants;
        let task = |job: Taken| Task { desk: self.clone(), me, weight: tenants.weight(job.tenant), job };
        let tasks: Vec<Task> = taken.into_iter().map(task).collect();
        self.shared.bench.put(tasks);
    }
}

impl Reports for Desk {
    fn progress(&self, tenant: TenantNo, id: Uuid, attempt: i32, progress: serde_json::Value) {
        self.state().progress.insert((tenant.get(), id), (attempt, progress));
    }
}
