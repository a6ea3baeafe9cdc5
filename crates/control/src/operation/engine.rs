//! Carries operations out: some at once, each by one task, until it is done, undone, or to be looked at later.
//!
//! Always: a fault that may pass is tried again with growing pauses until patience ends; a fault that stays, and the end
//! of patience, undo what was done. An engine that dies anywhere leaves rows that any engine goes on with.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use insula_core::Kind;
use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::fault::{Fault, Moment};
use super::lease;
use super::record::{self, Standing};
use super::step::{Outcome, Reach, Step, saga};
use super::work::Work;
use crate::error::Error;
use crate::handle::Control;

/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Tries that a fault without a known reason is given.
const UNEXPLAINED_TRIES: i32 = 3;

/// What the engine's tasks share.
pub(crate) struct Engine {
    permits: Arc<Semaphore>,
    in_hand: Mutex<HashSet<Uuid>>,
    wake: Notify,
    running: AtomicBool,
    /// Crashed on purpose, or shut down: nothing is begun any more.
    stopped: CancellationToken,
    tasks: TaskTracker,
    finished: broadcast::Sender<Uuid>,
}

/// How one round with an operation ended.
enum Exit {
    Finished,
    Later,
    /// By a fault on purpose.
    Crashed,
}

impl Engine {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(workers.max(1))),
            in_hand: Mutex::default(),
            wake: Notify::new(),
            running: AtomicBool::new(false),
            stopped: CancellationToken::new(),
            tasks: TaskTracker::new(),
            finished: broadcast::Sender::new(1024),
        }
    }

    /// There may be something to do.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ids of operations as they end.
    pub(crate) fn finished(&self) -> broadcast::Receiver<Uuid> {
        self.finished.subscribe()
    }

    /// Resolves when the engine was stopped, or has crashed on purpose.
    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// A free worker, for an operation that is being submitted: it needs no claim then.
    pub(crate) fn worker(&self) -> Option<OwnedSemaphorePermit> {
        if !self.running.load(Ordering::Acquire) || self.stopped.is_cancelled() {
            return None;
        }
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// An operation that is about to be ours: before its lease can be seen, or the next claim would take it for one that we
    /// have lost sight of, and two tasks would drive it.
    pub(crate) fn expect(&self, id: Uuid) {
        self.hands().insert(id);
    }

    /// It did not come to be ours.
    pub(crate) fn let_go(&self, id: Uuid) {
        self.hands().remove(&id);
    }

    fn hands(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids_in_hand(&self) -> Vec<Uuid> {
        self.hands().iter().copied().collect()
    }

    /// Goes on with an operation that is leased to us.
    pub(crate) fn drive(control: &Control, work: Work, permit: OwnedSemaphorePermit) {
        let control = control.clone();
        let engine = control.engine();
        let id = work.job.id;
        engine.expect(id);
        let tracked = control.clone();
        engine.tasks.spawn(async move {
            let engine = tracked.engine();
            let stopped = engine.stopped();
            let exit = tokio::select! {
                exit = round(work) => exit,
                () = stopped.cancelled() => Exit::Crashed,
            };
            engine.let_go(id);
            drop(permit);
            match exit {
                Exit::Finished => {
                    // Nobody listening is no fault.
                    let _ = engine.finished.send(id);
                    engine.wake();
                }
                Exit::Later => engine.wake(),
                Exit::Crashed => engine.stopped.cancel(),
            }
        });
    }

    /// Claims and drives until stopped. One task per process.
    pub(crate) async fn run(control: Control) {
        let engine = control.engine();
        engine.running.store(true, Ordering::Release);
        let mut pause = Duration::ZERO;
        while !engine.stopped.is_cancelled() {
            tokio::select! {
                () = engine.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = engine.stopped.cancelled() => break,
            }
            pause = match claim_round(&control).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "cannot look for operations; trying again");
                    Duration::from_millis(500)
                }
            };
        }
    }

    /// Keeps the leases of what is in hand. One task per process.
    pub(crate) async fn heartbeat(control: Control) {
        let engine = control.engine();
        let lease = control.config().lease;
        let mut beat = tokio::time::interval(lease / 3);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = engine.stopped.cancelled() => return,
            }
            let ids = engine.ids_in_hand();
            if ids.is_empty() {
                continue;
            }
            let kept =
                async { lease::keep(&mut *control.soft_pool().acquire().await?, &control.config().name, lease, &ids).await };
            if let Err(error) = kept.await {
                tracing::warn!(%error, "cannot keep the leases of operations");
            }
        }
    }

    /// Begins nothing more, drops what is in hand where it stands, and lets the leases go.
    pub(crate) async fn stop(control: &Control) {
        let engine = control.engine();
        engine.stopped.cancel();
        engine.tasks.close();
        engine.tasks.wait().await;
        let released = async { lease::release(&mut *control.soft_pool().acquire().await?, &control.config().name).await };
        if let Err(error) = released.await {
            tracing::warn!(%error, "cannot release leases; they run out by themselves");
        }
    }
}

/// Claims what there are workers for; says how long to sleep when nothing wakes us.
async fn claim_round(control: &Control) -> Result<Duration, Error> {
    const IDLE: f64 = 1.0;
    let engine = control.engine();
    let mut permits = Vec::new();
    while let Ok(permit) = Arc::clone(&engine.permits).try_acquire_owned() {
        permits.push(permit);
    }
    if permits.is_empty() {
        // Whoever finishes wakes us.
        return Ok(Duration::from_secs(1));
    }
    let mut conn = control.soft_pool().acquire().await?;
    let config = control.config();
    let claimed = lease::claim(&mut conn, &config.name, config.lease, &engine.ids_in_hand(), permits.len()).await?;
    let all_busy = claimed.len() == permits.len();
    for (found, permit) in claimed.into_iter().zip(permits) {
        let Some(saga) = saga(&found.kind) else {
            tracing::error!(kind = found.kind, id = %found.job.id, "an operation of a kind that this version does not know");
            continue;
        };
        let mut work = Work::new(control.clone(), saga, found.job, true);
        if found.resumed {
            let at = work.job.steps_done.min(saga.steps.len().saturating_sub(1));
            work.event(saga.steps.get(at).map_or("", |s| s.name()), "resumed", "");
        }
        Engine::drive(control, work, permit);
    }
    if all_busy {
        return Ok(Duration::ZERO);
    }
    let due = lease::next_due(&mut conn).await?.unwrap_or(IDLE);
    Ok(Duration::from_secs_f64(due.clamp(0.005, IDLE)))
}

/// Drives until it ends or has to wait. Whatever cannot even be recorded is left to the lease.
async fn round(mut work: Work) -> Exit {
    let id = work.job.id;
    match attempt(&mut work).await {
        Ok(exit) => exit,
        Err(error @ Error::LeaseLost(_)) => {
            tracing::warn!(%id, %error, "letting go of an operation");
            Exit::Later
        }
        Err(error) => {
            tracing::warn!(%id, %error, "cannot record where an operation stands; somebody will look again");
            work.discard();
            Exit::Later
        }
    }
}

async fn attempt(work: &mut Work) -> Result<Exit, Error> {
    if !work.job.undoing {
        match forward(work).await {
            Ok(exit) => return Ok(exit),
            Err(Stop::Unrecorded(error)) => return Err(error),
            Err(Stop::Step(error)) => {
                let (step, at) = (at_hand(work), work.job.steps_done);
                work.discard();
                if let Some(exit) = retry_or_give_up(work, step, at, &error).await? {
                    return Ok(exit);
                }
            }
        }
    }
    match backward(work).await {
        Ok(exit) => Ok(exit),
        Err(Stop::Unrecorded(error)) => Err(error),
        Err(Stop::Step(error)) => {
            // An undo is never given up: what it would leave behind nobody would look for.
            let step = at_hand(work);
            work.discard();
            tracing::warn!(id = %work.job.id, step, %error, "an undo failed; trying again");
            work.event(step, "failed", format!("undo: {}", error.public()));
            work.job.attempts += 1;
            let pause = pause(work);
            work.flush(Standing::Free(pause)).await?;
            Ok(Exit::Later)
        }
    }
}

/// Why driving stopped.
enum Stop {
    /// The step's own fault.
    Step(Error),
    /// The catalog did not take the record, or we no longer hold the lease.
    Unrecorded(Error),
}

/// A fault while recording is the catalog's; a fault of the data (a slug taken at the last moment) is the step's.
fn unrecorded(error: Error) -> Stop {
    match error {
        Error::Cell { .. } => Stop::Step(error),
        Error::Catalog(ref e) if !insula_kit::transient(e) => Stop::Step(error),
        other => Stop::Unrecorded(other),
    }
}

fn held(work: &Work) -> Standing {
    Standing::Held(work.control.config().lease)
}

fn at_hand(work: &Work) -> &'static str {
    let at = if work.job.undoing { work.job.steps_done.saturating_sub(1) } else { work.job.steps_done };
    work.saga.steps.get(at).map_or("", |s| s.name())
}

/// What goes wrong here on purpose: `Ok(true)` when the engine is to vanish.
fn injected(work: &Work, step: &dyn Step, moment: Moment) -> Result<bool, Stop> {
    match work.control.config().faults.at(work.saga.kind, step.name(), moment) {
        None => Ok(false),
        Some(Fault::Crash) => Ok(true),
        Some(Fault::Away) => Err(Stop::Step(Error::Away(format!("{} is away (on purpose)", step.name())))),
        Some(Fault::Fail) => Err(Stop::Step(Error::Conflict(format!("{} failed (on purpose)", step.name())))),
    }
}

async fn forward(work: &mut Work) -> Result<Exit, Stop> {
    let mut waited = None;
    while let Some(step) = work.saga.steps.get(work.job.steps_done).copied() {
        if injected(work, step, Moment::Before)? {
            return Ok(Exit::Crashed);
        }
        prepare(work, step).await?;
        work.event(step.name(), "started", "");
        show(work, step).await;
        match step.forward(work).await.map_err(Stop::Step)? {
            Outcome::Done => {}
            Outcome::Wait(pause, why) => {
                waited = Some((pause, why));
                break;
            }
        }
        if injected(work, step, Moment::After)? {
            return Ok(Exit::Crashed);
        }
        work.event(step.name(), "done", "");
        work.job.steps_done += 1;
        work.job.attempts = 0;
        work.job.error = None;
    }
    if let Some((pause, why)) = waited {
        if work.job.attempts == 0 {
            work.event(at_hand(work), "progress", why);
            work.job.attempts = 1;
        } else {
            // A look that found nothing new is not worth a line each time.
            work.events.pop();
        }
        work.flush(Standing::Free(pause)).await.map_err(unrecorded)?;
        return Ok(Exit::Later);
    }
    work.flush(Standing::Done).await.map_err(unrecorded)?;
    tracing::info!(id = %work.job.id, kind = work.saga.kind, "operation done");
    work.control.ended();
    Ok(Exit::Finished)
}

/// Lets people see the step at hand, once an operation takes long enough for people to look.
async fn show(work: &mut Work, step: &dyn Step) {
    const LONG: Duration = Duration::from_millis(25);
    if step.reach() == Reach::Catalog || work.since.elapsed() < LONG {
        return;
    }
    let shown = async {
        let mut conn = work.control.soft_pool().acquire().await?;
        record::show(&mut conn, &work.control.config().name, work.saga, &work.job).await
    };
    if let Err(error) = shown.await {
        tracing::debug!(%error, "cannot show the step at hand");
    }
}

/// What must be on disk before the step begins.
async fn prepare(work: &mut Work, step: &dyn Step) -> Result<(), Stop> {
    match step.reach() {
        Reach::Catalog => work.settle().await.map_err(Stop::Step),
        Reach::Cell if work.dirty() => work.flush(held(work)).await.map_err(unrecorded),
        Reach::Cell => Ok(()),
    }
}

async fn backward(work: &mut Work) -> Result<Exit, Stop> {
    while let Some(at) = work.job.steps_done.checked_sub(1) {
        let Some(step) = work.saga.steps.get(at).copied() else {
            work.job.steps_done = work.saga.steps.len();
            continue;
        };
        prepare(work, step).await?;
        step.undo(work).await.map_err(Stop::Step)?;
        if injected(work, step, Moment::Undone)? {
            return Ok(Exit::Crashed);
        }
        work.event(step.name(), "undone", "");
        work.job.steps_done = at;
        work.job.attempts = 0;
    }
    work.flush(Standing::Failed).await.map_err(unrecorded)?;
    tracing::warn!(id = %work.job.id, kind = work.saga.kind, "operation failed and is undone");
    work.control.ended();
    Ok(Exit::Finished)
}

/// After a fault in a step: a pause and another try (`Some`), or the way back (`None`).
async fn retry_or_give_up(work: &mut Work, step: &'static str, at: usize, error: &Error) -> Result<Option<Exit>, Error> {
    let now = Utc::now();
    let since = failing_since(work).unwrap_or(now);
    let patient = (now - since).to_std().unwrap_or_default() < work.control.config().patience;
    tracing::warn!(id = %work.job.id, kind = work.saga.kind, step, %error, "a step failed");
    work.event(step, "failed", error.public());
    // What a cell's server refuses for no reason that we know of may be a race in its own catalogs: not the first time is final.
    let unexplained = matches!(error, Error::Cell { .. } | Error::Kit { .. }) && error.kind() == Kind::Internal;
    if patient && (error.transient() || unexplained && work.job.attempts < UNEXPLAINED_TRIES) {
        work.job.attempts += 1;
        work.job.error = Some(json!({"kind": error.kind().name(), "detail": error.public(), "since": since}));
        let pause = pause(work);
        work.flush(Standing::Free(pause)).await?;
        return Ok(Some(Exit::Later));
    }
    work.job.error = Some(json!({"kind": error.kind().name(), "detail": error.public()}));
    work.job.undoing = true;
    work.job.attempts = 0;
    // The step that failed may be half done: it is undone too.
    work.job.steps_done = (at + 1).min(work.saga.steps.len());
    work.flush(held(work)).await?;
    Ok(None)
}

fn failing_since(work: &Work) -> Option<DateTime<Utc>> {
    serde_json::from_value(work.job.error.as_ref()?.get("since")?.clone()).ok()
}

/// Doubles with each try, with jitter so that what failed together does not come back together.
fn pause(work: &Work) -> Duration {
    let exponent = u32::try_from(work.job.attempts.clamp(1, 16) - 1).unwrap_or(0);
    let whole = work.control.config().backoff.saturating_mul(1 << exponent).min(LONGEST_PAUSE);
    let spread = u32::try_from(Uuid::new_v4().as_u128() % 512).unwrap_or(0);
    whole / 2 + whole.mul_f64(f64::from(spread) / 1024.0)
}
