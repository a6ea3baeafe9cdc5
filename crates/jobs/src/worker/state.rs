//! What a desk remembers between its hands, its runners and its beats.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use insula_planner::again::Budget;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::lanes::Settings;
use super::link::{Done, Taken};
use crate::said;

/// Why a job is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody cancelled it.
    Cancelled,
    /// The lease may be over: somebody else may have it.
    Lost,
    /// The process ends.
    Drained,
}

/// How a job ended, where that is more than "done".
pub(crate) enum End {
    Done(Option<Value>),
    Retry {
        delay: Duration,
        error: String,
    },
    Dead(String),
    Cancelled,
    Back {
        delay: Duration,
    },
    /// Not started: it lay in another lane than its kind's, where the kind's cap and rate do not hold, and is put there.
    Moved {
        lane: &'static str,
    },
}

impl End {
    /// Whether an attempt was made.
    pub(crate) const fn was_tried(&self) -> bool {
        !matches!(self, Self::Back { .. } | Self::Moved { .. })
    }
}

/// How long a moved job would wait in the lane that it was in, where the kit is older and leaves it there: else it came again at once, for ever.
const NOT_MOVED: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct State {
    /// This worker's number in this queue; 0 while it has none.
    pub(crate) me: i64,
    /// When it last proved that it lives.
    pub(crate) beaten: Option<Instant>,
    /// Takes under way.
    pub(crate) taking: usize,
    /// An answer was lost: it may have been given jobs that it does not know.
    pub(crate) lost_answer: bool,
    /// Takes that brought something.
    pub(crate) takes: u64,
    /// The queue had less than was asked for.
    pub(crate) dry: bool,
    pub(crate) stopping: bool,
    /// Schedules of the host at work.
    pub(crate) hosting: usize,
    /// Jobs of this desk on the bench or at a runner.
    pub(crate) held: HashMap<(i64, Uuid), i32, foldhash::fast::RandomState>,
    pub(crate) running: HashMap<(i64, Uuid), watch::Sender<Option<Stop>>, foldhash::fast::RandomState>,
    pub(crate) done: Done,
    pub(crate) ends: Vec<Value>,
    pub(crate) tell: HashMap<(i64, String), Settings>,
    pub(crate) corrections: HashMap<i64, i64>,
    pub(crate) progress: HashMap<(i64, Uuid), (i32, Value)>,
    pub(crate) budgets: HashMap<i64, Budget>,
    pub(crate) pace: Pace,
}

impl State {
    /// Takes note of an end that leaves something behind.
    pub(crate) fn end(&mut self, job: &Taken, end: &End) {
        let (outcome, delay, error, result) = match end {
            End::Done(result) => ("done", None, None, result.clone()),
            End::Retry { delay, error } => ("retry", Some(*delay), Some(error.as_str()), None),
            End::Dead(error) => ("dead", None, Some(error.as_str()), None),
            End::Cancelled => ("cancelled", None, None, None),
            End::Back { delay } => ("back", Some(*delay), None, None),
            End::Moved { .. } => ("back", Some(NOT_MOVED), None, None),
        };
        let lane = if let End::Moved { lane } = end { Some(*lane) } else { None };
        let delay = delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let error = error.map(said::error);
        self.ends.push(json!({
            "t": job.tenant, "i": job.id, "a": job.attempt, "l": job.lane, "o": outcome, "d": delay, "e": error, "r": result, "n": lane,
        }));
    }

    /// What waits to be said.
    pub(crate) fn to_say(&self) -> usize {
        self.done.len() + self.ends.len() + self.tell.len()
    }

    /// Stops everything that runs.
    pub(crate) fn stop_all(&self, why: Stop) {
        for running in self.running.values() {
            running.send_replace(Some(why));
        }
    }
}

/// How many jobs end in a second, lately.
#[derive(Default)]
pub(crate) struct Pace {
    since: Option<Instant>,
    count: u32,
    per_second: f64,
}

impl Pace {
    pub(crate) fn ended(&mut self) {
        self.count += 1;
    }

    /// Looks at the clock. What [`Pace::in_span`] says is as it was then.
    pub(crate) fn look(&mut self) {
        let now = Instant::now();
        let elapsed = self.since.map(|since| now - since);
        match elapsed {
            Some(elapsed) if elapsed >= Duration::from_millis(20) => {
                let seen = f64::from(self.count) / elapsed.as_secs_f64();
                self.per_second = if elapsed > Duration::from_secs(1) { seen } else { self.per_second.mul_add(0.5, seen * 0.5) };
                (self.since, self.count) = (Some(now), 0);
            }
            Some(_) => {}
            None => self.since = Some(now),
        }
    }

    /// Jobs that will end in a span.
    pub(crate) fn in_span(&self, span: Duration) -> usize {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
        let jobs = (self.per_second * span.as_secs_f64()) as usize;
        jobs
    }
}
