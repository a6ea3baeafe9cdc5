//! Where taken jobs lie until a runner is free: in a fair order among themselves, so that a newcomer's does not wait behind all of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use insula_planner::ahead::Ahead;
use tokio::sync::Notify;

use super::desk::Desk;
use super::link::Taken;

/// A job that was taken, and where its end is said.
pub(crate) struct Task {
    pub(crate) desk: Arc<Desk>,
    /// The number that the worker had when it took it.
    pub(crate) me: i64,
    pub(crate) job: Taken,
    /// Its tenant's, by its plan.
    pub(crate) weight: u32,
}

/// What waits for runners.
#[derive(Default)]
pub(crate) struct Bench {
    line: Mutex<Ahead<Task>>,
    came: Notify,
    idle: AtomicUsize,
    /// Jobs that desks have asked for and not been given yet.
    asked: AtomicUsize,
    closed: AtomicBool,
}

impl Bench {
    fn line(&self) -> MutexGuard<'_, Ahead<Task>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, tasks: Vec<Task>) {
        let mut line = self.line();
        let before = line.len();
        for task in tasks {
            line.join(task.job.tenant, task.weight, u32::try_from(task.job.cost).unwrap_or(1), task);
        }
        let more = line.len() - before;
        drop(line);
        for _ in 0..more.min(self.idle.load(Ordering::Acquire)) {
            self.came.notify_one();
        }
    }

    /// The next job; `None` when there is nothing more to do.
    pub(crate) async fn next(&self) -> Option<Task> {
        loop {
            // Wanted before the look, so that what comes between is not missed.
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            if let Some(task) = self.line().start() {
                return Some(task);
            }
            let _idle = Idle::new(&self.idle);
            // One more look: whoever put something before this runner counted as idle did not notify it.
            if let Some(task) = self.line().start() {
                return Some(task);
            }
            came.await;
        }
    }

    /// Takes back what a desk put here and nobody has started.
    pub(crate) fn withdraw(&self, desk: &Desk) -> Vec<Task> {
        self.line().withdraw(|task| std::ptr::eq(&*task.desk, desk))
    }

    /// Ends all runners as soon as they are free.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.came.notify_waiters();
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Ordering::Acquire)
    }

    /// Jobs on their way to a runner.
    pub(crate) fn coming(&self) -> usize {
        self.line().len() + self.asked.load(Ordering::Acquire)
    }

    pub(crate) fn ask(&self, jobs: usize) {
        self.asked.fetch_add(jobs, Ordering::AcqRel);
    }

    pub(crate) fn answered(&self, jobs: usize) {
        self.asked.fetch_sub(jobs, Ordering::AcqRel);
    }
}

struct Idle<'a>(&'a AtomicUsize);

impl<'a> Idle<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
