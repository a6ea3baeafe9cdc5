//! The gate of one cell: how much may be at work there at once, who goes next when it is full, and whether it is worth asking.
//!
//! Always: no more requests are at work than the limit that the cell's own times have taught us (`planner::gradient`); while
//! somebody waits, nobody passes by; who waits is served by weight (`planner::queue`), in bounded number and time; who cannot be
//! served in time is told so at once.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use insula_core::{CellName, TenantNo};
use insula_planner::breaker::{Probed, Verdict};
use insula_planner::circuit::Circuit;
use insula_planner::gcra::Nanos;
use insula_planner::gradient::{Gradient, Span};
use insula_planner::queue::{Bounds, FairQueue, Joined, Place};
use tokio::sync::oneshot;

use super::class::MOST;
use super::config::AdmissionConfig;
use super::refused::OVERLOADED;
use super::seats::{Apart, DESKS, Seats};
use super::tenant::Tenants;
use super::ticks::Ticks;

/// Length of a span that teaches the limit, and how many requests it has at least.
const SPAN: Nanos = 100_000_000;
const SPAN_REQUESTS: u64 = 20;

/// One thread's way to a gate: its count of references, and its share of the gate's counters, are hardly anybody else's.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Desk {
    gate: Arc<Gate>,
    at: usize,
}

impl std::ops::Deref for Desk {
    type Target = Arc<Gate>;
    fn deref(&self) -> &Arc<Gate> {
        &self.gate
    }
}

/// A gate's desks.
#[derive(Debug)]
pub(crate) struct Desks([Arc<Desk>; DESKS]);

impl Desks {
    pub(crate) fn new(gate: Gate) -> Self {
        let gate = Arc::new(gate);
        Self(std::array::from_fn(|at| Arc::new(Desk { gate: Arc::clone(&gate), at })))
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0[0].gate
    }

    /// The calling thread's.
    #[inline]
    pub(crate) fn mine(&self) -> Arc<Desk> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // In turn: drawn by lot, two of four threads would mostly meet at one desk.
        thread_local! { static HERE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % DESKS }
        Arc::clone(&self.0[HERE.with(|here| *here)])
    }
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) name: CellName,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) ticks: Ticks,
    pub(crate) circuit: Circuit,
    /// Requests of each class at work, for bulkheads.
    pub(crate) classes: [AtomicU32; MOST + 1],
    seats: Seats,
    /// By desk: requests finished well (20 bits) and the microseconds they took (44 bits), round and round.
    finished: [Apart<AtomicU64>; DESKS],
    lost: AtomicBool,
    late: Mutex<Late>,
    /// Answers of the span that teach nothing of time.
    excused: AtomicU32,
    /// Mean microseconds of a request in the last span.
    usual: AtomicU64,
    span_ends: AtomicU64,
    learning: Mutex<Learning>,
    queue: Mutex<FairQueue<oneshot::Sender<Seat>>>,
}

#[derive(Debug)]
struct Learning {
    gradient: Gradient,
    /// `finished` at the beginning of the span.
    finished: [u64; DESKS],
}

impl Desk {
    /// Takes a seat, if there is one and nobody waits for it; to be given back by [`Desk::leave_seat`].
    #[inline]
    pub(crate) fn try_sit(&self) -> bool {
        self.gate.seats.waiting() == 0 && (self.gate.seats.take(self.at) || self.gate.try_any())
    }

    #[inline]
    pub(crate) fn leave_seat(&self) {
        self.gate.seats.leave(self.at);
        self.gate.serve_who_waits();
    }

    /// What became of a request.
    #[inline]
    pub(crate) fn learn(&self, tenant: TenantNo, outcome: Outcome, took: Nanos, now: Nanos) {
        self.gate.learn(self.at, tenant, outcome, took, now);
    }
}

/// Requests of a span that had no answer in time, paired up by different tenants as far as that goes (as in the majority vote of Boyer and Moore).
/// A tenant whose own database hangs has many of these; in an overloaded cell everybody has.
#[derive(Debug, Default)]
struct Late {
    /// Whose requests found no partner yet, and how many.
    tenant: Option<TenantNo>,
    alone: u64,
    pairs: u64,
}

impl Late {
    fn add(&mut self, tenant: TenantNo) {
        if self.alone == 0 {
            self.tenant = Some(tenant);
        }
        if self.tenant == Some(tenant) {
            self.alone += 1;
        } else {
            self.alone -= 1;
            self.pairs += 1;
        }
    }

    /// Whether the cell itself was too slow in a span in which so many were answered.
    const fn tells_of_the_cell(&self, answered: u64) -> bool {
        self.pairs > 0 && self.pairs * 2 >= answered
    }
}

/// A place at work in a cell; gives itself back.
#[derive(Debug)]
pub(crate) struct Seat {
    gate: Option<Arc<Gate>>,
}

/// Too many wait, or it would take too long: come back after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoSeat(pub(crate) Duration);

impl Gate {
    pub(crate) fn new(name: CellName, config: &AdmissionConfig, tenants: Arc<Tenants>, ticks: Ticks) -> Self {
        let gradient = Gradient::new(config.limit.policy());
        Self {
            name,
            tenants,
            circuit: Circuit::new(config.breaker.policy()),
            classes: Default::default(),
            seats: Seats::new(gradient.limit()),
            finished: Default::default(),
            lost: AtomicBool::new(false),
            late: Mutex::default(),
            excused: AtomicU32::new(0),
            usual: AtomicU64::new(0),
            span_ends: AtomicU64::new(ticks.now() + SPAN),
            learning: Mutex::new(Learning { gradient, finished: [0; DESKS] }),
            queue: Mutex::new(FairQueue::new(Bounds { all: config.queue, each: config.queue_per_tenant })),
            ticks,
        }
    }

    #[cold]
    fn try_any(self: &Arc<Self>) -> bool {
        let sat = self.seats.waiting() == 0 && self.seats.take_any();
        self.serve_who_waits();
        sat
    }

    /// Waits for a seat, at most for `patience`.
    pub(crate) async fn sit(self: &Arc<Self>, tenant: TenantNo, weight: u32, patience: Duration) -> Result<Seat, NoSeat> {
        let (sender, receiver) = oneshot::channel();
        let place = {
            let mut queue = self.queue();
            let expected = self.time_for(queue.turns(tenant, weight));
            if expected > patience {
                return Err(NoSeat(expected));
            }
            let joined = queue.join(tenant, weight, 1, sender);
            self.count(&queue);
            match joined {
                Joined::Waiting(place) => place,
                // Dropping its sender tells the one that had to leave.
                Joined::Instead(place, _pushed_out) => place,
                Joined::Refused(_) => return Err(NoSeat(expected)),
            }
        };
        self.serve();
        let mut line = InLine { gate: self, place, receiver };
        match tokio::time::timeout(patience, &mut line.receiver).await {
            Ok(Ok(seat)) => Ok(seat),
            _ => Err(NoSeat(self.time_for(u64::from(self.waiting()) + 1))),
        }
    }

    /// Seats whoever may be seated. The queue is not locked while a seat is handed over, because a refused seat comes back here.
    fn serve(self: &Arc<Self>) {
        loop {
            let next = {
                let mut queue = self.queue();
                if queue.waiting() == 0 || !self.seats.take_any() {
                    return;
                }
                let next = queue.serve();
                self.count(&queue);
                next
            };
            let Some((_, waiter)) = next else {
                self.seats.give_back();
                return;
            };
            if let Err(mut unwanted) = waiter.send(Seat { gate: Some(Arc::clone(self)) }) {
                unwanted.gate = None;
                self.seats.give_back();
            }
        }
    }

    #[inline]
    fn serve_who_waits(self: &Arc<Self>) {
        if self.seats.waiting() > 0 {
            self.serve();
        }
    }

    /// What became of a request: teaches the limit and the circuit.
    #[inline]
    pub(crate) fn learn(self: &Arc<Self>, desk: usize, tenant: TenantNo, outcome: Outcome, took: Nanos, now: Nanos) {
        match outcome {
            Outcome::Sound => {
                self.finished[desk].0.fetch_add(1 << 44 | (took / 1_000).min(1 << 40), Ordering::Relaxed);
            }
            Outcome::Overloaded => self.lost.store(true, Ordering::Relaxed),
            Outcome::Late => self.late().add(tenant),
            Outcome::Excused => drop(self.excused.fetch_add(1, Ordering::Relaxed)),
            Outcome::Failed => {
                if self.circuit.failed(now, chance(now)) {
                    tracing::warn!(cell = %self.name, "the circuit of a cell is open: it keeps failing");
                    metrics::counter!("insula_circuit_opened_total", "dependency" => "cell").increment(1);
                }
            }
            Outcome::Unknown => {}
        }
        if now >= self.span_ends.load(Ordering::Relaxed) {
            self.end_span(now);
        }
    }

    #[cold]
    fn end_span(self: &Arc<Self>, now: Nanos) {
        // One thread learns; the others go on.
        let Ok(mut learning) = self.learning.try_lock() else { return };
        let finished: [u64; DESKS] = std::array::from_fn(|at| self.finished[at].0.load(Ordering::Relaxed));
        let passed = finished.iter().zip(learning.finished).map(|(now, before)| now.wrapping_sub(before));
        let (requests, micros) = passed.fold((0, 0), |(n, sum), passed| (n + (passed >> 44), sum + (passed & ((1 << 44) - 1))));
        let ends = self.span_ends.load(Ordering::Relaxed);
        let lost = self.lost.load(Ordering::Relaxed);
        if now < ends || (requests < SPAN_REQUESTS && !lost && now < ends + 10 * SPAN) {
            return;
        }
        self.span_ends.store(now + SPAN, Ordering::Relaxed);
        learning.finished = finished;
        let excused = u64::from(self.excused.swap(0, Ordering::Relaxed));
        self.circuit.sound(requests + excused);
        let late = std::mem::take(&mut *self.late());
        let overloaded = self.lost.swap(false, Ordering::Relaxed) | late.tells_of_the_cell(requests + excused);
        let peak = self.seats.take_peak();
        let mean = micros.checked_div(requests).unwrap_or(0);
        if requests > 0 {
            self.usual.store(mean.max(1), Ordering::Relaxed);
        }
        #[allow(clippy::cast_precision_loss, reason = "microseconds of a request")]
        let span = Span { time: mean as f64, peak, overloaded };
        let limit = learning.gradient.update(span);
        drop(learning);
        let before = self.seats.change_limit(limit);
        metrics::gauge!("insula_cell_limit", "cell" => self.name.to_string()).set(limit);
        metrics::gauge!("insula_cell_in_flight", "cell" => self.name.to_string()).set(self.in_flight());
        metrics::gauge!("insula_cell_waiting", "cell" => self.name.to_string()).set(self.waiting());
        if limit > before {
            self.serve();
        }
    }

    /// May somebody ask this cell?
    #[inline]
    pub(crate) fn ask(&self, now: Nanos) -> Verdict {
        self.circuit.ask(now)
    }

    pub(crate) fn probed(&self, outcome: Outcome, now: Nanos) {
        let outcome = match outcome {
            Outcome::Sound | Outcome::Excused => Probed::Sound,
            Outcome::Failed => Probed::Failed,
            Outcome::Overloaded | Outcome::Late | Outcome::Unknown => Probed::Unknown,
        };
        if self.circuit.probed(now, outcome, chance(now)) {
            tracing::info!(cell = %self.name, "the circuit of a cell is closed again");
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.seats.in_flight()
    }

    pub(crate) fn limit(&self) -> u32 {
        self.seats.limit()
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.seats.waiting()
    }

    /// About how long `turns` requests take.
    pub(crate) fn time_for(&self, turns: u64) -> Duration {
        let micros = self.usual.load(Ordering::Relaxed).saturating_mul(turns) / u64::from(self.limit().max(1));
        Duration::from_micros(micros)
    }

    fn count(&self, queue: &FairQueue<oneshot::Sender<Seat>>) {
        self.seats.tell_waiting(u32::try_from(queue.waiting()).unwrap_or(u32::MAX));
    }

    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, FairQueue<oneshot::Sender<Seat>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whoever calls this gives the seat back by [`Desk::leave_seat`].
    pub(crate) fn keep(mut self) {
        self.gate = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.seats.give_back();
            gate.serve_who_waits();
        }
    }
}

/// Any number: the hasher's keys are random.
fn chance(now: Nanos) -> u32 {
    (RandomState::new().hash_one(now) >> 32) as u32
}

/// A place in the line; leaves it when dropped.
struct InLine<'a> {
    gate: &'a Arc<Gate>,
    place: Place,
    receiver: oneshot::Receiver<Seat>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        // A seat that was sent and not received is dropped with the receiver, and so given back.
        let withdrawn = {
            let mut queue = self.gate.queue();
            let withdrawn = queue.withdraw(self.place);
            self.gate.count(&queue);
            withdrawn
        };
        drop(withdrawn);
    }
}

/// What became of a request, as far as its cell is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The cell answered, whatever it said: a 404 or a 500 of the application is an answer.
    Sound,
    /// The cell answered 503 and did not say that it is too busy: it is there, but what its tenant needs may be away. Says nothing of how long
    /// the cell takes.
    Excused,
    /// The cell could not be asked: no connection.
    Failed,
    /// The cell said that it is too busy (503 with [`OVERLOADED`]).
    Overloaded,
    /// There was no answer in the time that there may be, or it broke off. Says something of the cell when it happens to several tenants alike,
    /// and to most requests.
    Late,
    /// Nobody knows: the client went away, or we refused for reasons of our own.
    Unknown,
}

impl Outcome {
    /// What an answer says of the cell that it came from.
    #[inline]
    #[must_use]
    pub fn of_answer(status: StatusCode, headers: &HeaderMap) -> Self {
        match status {
            StatusCode::SERVICE_UNAVAILABLE if headers.contains_key(OVERLOADED) => Self::Overloaded,
            StatusCode::SERVICE_UNAVAILABLE => Self::Excused,
            StatusCode::GATEWAY_TIMEOUT => Self::Late,
            _ => Self::Sound,
        }
    }
}
