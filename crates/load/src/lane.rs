//! One tenant on one worker: what is due, and which connections are free to carry it.
//!
//! A connection that comes free takes what is overdue at once; when nothing is, it queues here and the worker's dispatcher hands it the next slot
//! at its time. Always: a slot is given out once; a lane whose next slot nobody waits for is in `pokes`, so that the dispatcher looks again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use tokio::sync::Notify;

use crate::schedule::Schedule;

/// A request to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// When it was due: its latency counts from here.
    pub(crate) due: Instant,
    /// Whether a free connection stood by: then any delay before sending is the generator's own.
    pub(crate) stood_by: bool,
}

/// Lanes that the dispatcher is to look at again.
#[derive(Debug, Default)]
pub(crate) struct Pokes {
    lanes: Mutex<Vec<usize>>,
    wake: Notify,
}

impl Pokes {
    fn add(&self, lane: usize) {
        lock(&self.lanes).push(lane);
        self.wake.notify_one();
    }

    /// Waits for the first.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Takes those that are there.
    pub(crate) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *lock(&self.lanes))
    }
}

/// See the module.
pub(crate) struct Lane {
    no: usize,
    pokes: Arc<Pokes>,
    state: Mutex<State>,
}

struct State {
    schedule: Schedule,
    /// First come, first served: so all connections stay in use.
    free: VecDeque<usize>,
    seats: Vec<Seat>,
    /// The run is over.
    closed: bool,
    /// The dispatcher knows when the next slot is due.
    watched: bool,
}

#[derive(Default)]
struct Seat {
    slot: Option<Slot>,
    waker: Option<Waker>,
    queued: bool,
}

impl Lane {
    pub(crate) fn new(no: usize, schedule: Schedule, connections: usize, pokes: Arc<Pokes>) -> Self {
        let seats = (0..connections).map(|_| Seat::default()).collect();
        Self { no, pokes, state: Mutex::new(State { schedule, free: VecDeque::new(), seats, closed: false, watched: false }) }
    }

    /// The next slot for the connection in this seat; `None` when there are no more.
    pub(crate) async fn next(&self, seat: usize) -> Option<Slot> {
        std::future::poll_fn(|cx| {
            let mut state = lock(&self.state);
            let now = Instant::now();
            if let Some(slot) = state.seats[seat].slot.take() {
                return Poll::Ready(Some(slot));
            }
            if state.closed {
                return Poll::Ready(None);
            }
            if !state.seats[seat].queued {
                if let Some(due) = state.schedule.take(now) {
                    return Poll::Ready(Some(Slot { due, stood_by: false }));
                }
                state.free.push_back(seat);
                state.seats[seat].queued = true;
            }
            state.seats[seat].waker = Some(cx.waker().clone());
            if !state.watched && state.schedule.due(now).is_some() {
                state.watched = true;
                self.pokes.add(self.no);
            }
            Poll::Pending
        })
        .await
    }

    /// Hands out what is due; when to look again, if anybody would be free then.
    pub(crate) fn dispatch(&self, now: Instant) -> Option<Instant> {
        let mut state = lock(&self.state);
        while !state.free.is_empty() {
            let Some(due) = state.schedule.take(now) else { break };
            if let Some(seat) = state.free.pop_front() {
                state.seats[seat].queued = false;
                state.seats[seat].slot = Some(Slot { due, stood_by: true });
                wake(&mut state.seats[seat]);
            }
        }
        match state.schedule.due(now) {
            Some(due) if !state.free.is_empty() => {
                state.watched = true;
                Some(due)
            }
            // Whoever comes free first takes it; or there is nothing more.
            _ => {
                state.watched = false;
                None
            }
        }
    }

    /// Whether nothing is left to send, ever.
    pub(crate) fn is_done(&self) -> bool {
        lock(&self.state).schedule.due(Instant::now()).is_none()
    }

    /// Sends home those who wait, and those who come.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.seats.iter_mut().for_each(wake);
    }

    /// What was due and never sent, once the end has come.
    pub(crate) fn unsent(&self, end: Instant) -> Vec<Instant> {
        let mut state = lock(&self.state);
        if state.schedule.is_closed() {
            return Vec::new();
        }
        std::iter::from_fn(|| state.schedule.take(end)).collect()
    }
}

fn wake(seat: &mut Seat) {
    if let Some(waker) = seat.waker.take() {
        waker.wake();
    }
}

/// A panic elsewhere leaves nothing half done here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
