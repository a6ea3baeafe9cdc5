//! Visits to the databases of single tenants: there are many, most of them idle, so nobody stays. A worker comes when the bell rings, when it is time
//! for something there, and now and then by itself.
//!
//! Always: however many there are, few connections are opened at once, and visits that nobody asked for are not more than some tens a second; a database
//! with work is left for others that wait, in turn.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use insula_core::CellName;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::DatabaseName;
use super::desk::Desk;
use super::link::Glance;

/// Databases that are looked at, or connected to, at once.
const DOORS: usize = 8;
/// Databases that are worked in at once, beside one for each of the worker's places.
const ROOMS: usize = 48;
/// How long one with work is stayed in while others wait.
const TURN: Duration = Duration::from_secs(5);
/// Between two visits that nobody asked for, of all databases.
const BETWEEN: Duration = Duration::from_millis(30);
/// The longest rest of a database, however few there are.
const LONGEST: Duration = Duration::from_secs(10);

/// What a worker's visits have in common.
pub(crate) struct Visits {
    doors: Semaphore,
    rooms: Semaphore,
    /// Databases that wait for a room.
    waiting: AtomicUsize,
    desks: Mutex<HashMap<DatabaseName, Weak<Desk>>>,
}

/// The right to work in a database for a while.
pub(crate) struct Room<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    visits: &'a Visits,
    since: Instant,
}

impl Visits {
    pub(crate) fn new(places: usize) -> Self {
        let (doors, rooms) = (Semaphore::new(DOORS), Semaphore::new(ROOMS + places));
        Self { doors, rooms, waiting: AtomicUsize::new(0), desks: Mutex::default() }
    }

    pub(crate) fn desks(&self) -> MutexGuard<'_, HashMap<DatabaseName, Weak<Desk>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something came to a database.
    pub(crate) fn ring(&self, cell: &CellName, database: &str) {
        let name = DatabaseName { cell: cell.clone(), database: database.into() };
        if let Some(desk) = self.desks().get(&name).and_then(Weak::upgrade) {
            desk.bell.notify_one();
        }
    }

    /// Waits for its turn to connect.
    pub(crate) async fn door(&self) -> Option<SemaphorePermit<'_>> {
        self.doors.acquire().await.ok()
    }

    /// Waits for its turn to work.
    pub(crate) async fn room(&self) -> Room<'_> {
        let permit = match self.rooms.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let _waits = Waits::new(&self.waiting);
                self.rooms.acquire().await.ok()
            }
        };
        Room { _permit: permit, visits: self, since: Instant::now() }
    }

    /// The longest rest, by how many there are.
    pub(crate) fn longest(&self) -> Duration {
        (BETWEEN * u32::try_from(self.desks().len()).unwrap_or(u32::MAX)).max(LONGEST)
    }

    /// When to look again by itself, after so many visits in a row that found nothing.
    pub(crate) fn rest(&self, first: Duration, calm: u32, glance: Glance, lease: Duration) -> Duration {
        if glance.work {
            return Duration::ZERO;
        }
        let usual = first.saturating_mul(1 << calm.min(16)).min(self.longest());
        let next = glance.next_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        // Whoever is there may have died, and leave jobs behind.
        let watched = (glance.workers > 0).then_some(lease);
        [next, watched].into_iter().flatten().fold(usual, Duration::min)
    }
}

impl Room<'_> {
    /// Whether others have waited for long enough.
    pub(crate) fn is_over(&self) -> bool {
        self.visits.waiting.load(Ordering::Acquire) > 0 && self.since.elapsed() > TURN
    }
}

struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
