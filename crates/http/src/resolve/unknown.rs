//! Names that nobody knows: asked about at a bounded rate, remembered in bounded memory, never in anybody else's way.
//!
//! A process knows all tenants, so a name that it does not know is wrong, or was made a moment ago. The first that asks for it has the
//! catalog catch up; all who wait at that moment share the answer. Then the name is remembered as unknown for a moment, so that the next
//! who asks for it is answered at once.
//!
//! Always: the catalog is asked once an interval at most, whatever comes; the memory is a fixed table; at most so many requests wait, and
//! the others are answered from what is known. A remembered name hides nothing: what the catalog knows by itself (it is pushed) is looked up
//! first, and memory only says that asking again is no use yet. So a new tenant is found when it is pushed, polled, or asked for,
//! whichever comes first; the last within [`UnknownOptions::remember_ms`] plus one interval.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use insula_catalog::Catalog;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use crate::resolve::refusal::UnknownTenant;

/// How unknown names are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnknownOptions {
    /// How long a name stays unknown without asking again, milliseconds.
    pub remember_ms: u64,
    /// The catalog is not asked more often than once in this time, milliseconds.
    pub ask_every_ms: u64,
    /// The longest that a request waits for the catalog, milliseconds.
    pub patience_ms: u64,
    /// Requests that may wait at once; more are answered from what is known.
    pub waiting: u32,
    /// Names remembered, rounded up to a power of two; each costs eight bytes.
    pub names: u32,
}

impl Default for UnknownOptions {
    fn default() -> Self {
        Self { remember_ms: 500, ask_every_ms: 100, patience_ms: 1_000, waiting: 256, names: 1 << 16 }
    }
}

/// Slots hold the hash's high bits and, in the low ones, when they were written, in steps of [`STEP`] milliseconds.
const TIME_BITS: u32 = 20;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const STEP: u64 = 10;

/// What this process remembers as unknown, and the way to ask. See the module.
pub struct Unknowns {
    /// A name may be overwritten by another: then it is asked about again.
    slots: Box<[AtomicU64]>,
    epoch: Instant,
    remember: u64,
    every: Duration,
    patience: Duration,
    waiting: Semaphore,
    turn: Mutex<Turn>,
}

#[derive(Default)]
struct Turn {
    /// When the catalog was last asked, also when nobody waited for the answer in the end.
    asked: Option<Instant>,
    /// The beginning of the last question that was answered: nothing committed before it is missing.
    answered: Option<Instant>,
}

impl Unknowns {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(options: UnknownOptions) -> Self {
        let slots = (options.names.clamp(1, 1 << TIME_BITS) as usize).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            epoch: Instant::now(),
            remember: options.remember_ms.div_ceil(STEP),
            every: Duration::from_millis(options.ask_every_ms),
            patience: Duration::from_millis(options.patience_ms),
            waiting: Semaphore::new(options.waiting as usize),
            turn: Mutex::default(),
        }
    }

    /// Waits until the catalog has caught up with this moment, if asking about `name` is of use now. `true` when it is worth looking
    /// again.
    pub async fn ask(&self, catalog: &Catalog, name: UnknownTenant) -> bool {
        if self.remembers(name) {
            count("remembered");
            return false;
        }
        // Apart, and on the heap: those who find what they look for carry nothing of it.
        Box::pin(self.ask_now(catalog)).await
    }

    async fn ask_now(&self, catalog: &Catalog) -> bool {
        let Ok(_place) = self.waiting.try_acquire() else {
            count("crowded");
            return false;
        };
        count("asked");
        if timeout(self.patience, self.catch_up(catalog)).await.is_err() {
            tracing::debug!("the catalog did not catch up in time: answering from what is known");
        }
        true
    }

    /// Whether `name` was found unknown a moment ago.
    #[must_use]
    pub fn remembers(&self, name: UnknownTenant) -> bool {
        let slot = self.slot(name).load(Ordering::Relaxed);
        let age = self.now().wrapping_sub(slot) & TIME_MASK;
        slot & !TIME_MASK == name.hash & !TIME_MASK && age < self.remember
    }

    /// Remembers `name` as unknown.
    pub fn remember(&self, name: UnknownTenant) {
        self.slot(name).store(name.hash & !TIME_MASK | self.now() & TIME_MASK, Ordering::Relaxed);
    }

    fn slot(&self, name: UnknownTenant) -> &AtomicU64 {
        // The low bits, which the slot does not hold; the table's length is a power of two, so the mask keeps within it.
        &self.slots[(name.hash & TIME_MASK) as usize & (self.slots.len() - 1)]
    }

    /// In steps. Wraps after three hours in the slots; a name from then that seems fresh is merely not asked about for a moment.
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX) / STEP + 1
    }

    /// Resolves when the catalog shows what was committed before this call, as far as it can be reached.
    async fn catch_up(&self, catalog: &Catalog) {
        let came = Instant::now();
        let mut turn = self.turn.lock().await;
        if turn.answered.is_some_and(|answered| answered >= came) {
            return;
        }
        if let Some(asked) = turn.asked {
            sleep_until(asked + self.every).await;
        }
        let asked = Instant::now();
        // Before the answer, so that a client that goes away does not make the next one ask at once.
        turn.asked = Some(asked);
        if let Err(error) = catalog.refresh().await {
            tracing::debug!(%error, "the catalog does not answer: answering from what is known");
        }
        // Also when it failed: who came meanwhile need not find that out one by one.
        turn.answered = Some(asked);
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("insula_unknown_tenants_total", "outcome" => outcome).increment(1);
}

impl std::fmt::Debug for Unknowns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unknowns").field("names", &self.slots.len()).finish_non_exhaustive()
    }
}
