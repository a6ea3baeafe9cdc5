//! One load at a time for each thing: who comes while it is made waits for it.
//!
//! Always: whoever waits is answered. A load that is given up (cancelled, panicked) wakes those who wait, and one of them loads; one that takes too
//! long, or waits for itself, is not waited for beyond [`PATIENCE`]. What was forgotten after a load began is not handed to those who ask after
//! that.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use insula_core::TenantNo;
use tokio::sync::watch;

use crate::key::KeyBytes;
use crate::shard::{Held, Name};

/// For how long a load is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const GATES: usize = 64;

/// What came of a load.
#[derive(Clone, Debug)]
pub(crate) enum Landed {
    Value(Held),
    /// The loader's error, of its own type.
    Failed(Arc<dyn Any + Send + Sync>),
    /// It was given up.
    Abandoned,
}

type Destination = (TenantNo, u64, KeyBytes);

#[derive(Debug)]
struct Flight {
    /// Of what it will bring.
    generation: u32,
    /// The thing was forgotten by name meanwhile.
    outdated: AtomicBool,
    landed: watch::Sender<Option<Landed>>,
}

type Gate = HashMap<Destination, Arc<Flight>, foldhash::fast::RandomState>;

/// The loads under way.
#[derive(Debug)]
pub(crate) struct Flights(Box<[Mutex<Gate>]>);

/// The caller's part.
pub(crate) enum Part<'a> {
    /// It loads.
    Lead(Lead<'a>),
    /// Somebody does.
    Wait(watch::Receiver<Option<Landed>>),
}

/// Somebody's duty to load. Dropped without [`Lead::land`], the load is abandoned.
pub(crate) struct Lead<'a> {
    flights: &'a Flights,
    destination: Option<Destination>,
    hash: u64,
    flight: Arc<Flight>,
}

impl Flights {
    pub(crate) fn new() -> Self {
        Self((0..GATES).map(|_| Mutex::default()).collect())
    }

    /// Joins the load of that name and generation, or begins it.
    pub(crate) fn join(&self, name: &Name<'_>, generation: u32) -> Part<'_> {
        let destination = (name.tenant, name.resource, name.key.clone());
        let mut gate = self.gate(name.hash);
        let flight = Arc::new(Flight { generation, outdated: AtomicBool::new(false), landed: watch::Sender::new(None) });
        match gate.entry(destination) {
            Entry::Occupied(there) if there.get().generation == generation => Part::Wait(there.get().landed.subscribe()),
            Entry::Occupied(mut there) => {
                // What it brings was forgotten as a whole: those who wait for it asked before that.
                there.insert(Arc::clone(&flight));
                self.lead(there.key().clone(), name.hash, flight)
            }
            Entry::Vacant(free) => {
                let destination = free.key().clone();
                free.insert(Arc::clone(&flight));
                self.lead(destination, name.hash, flight)
            }
        }
    }

    /// The thing of that name is forgotten: the load under way is not for those who come from now on.
    pub(crate) fn forget(&self, name: &Name<'_>) {
        let gone = self.gate(name.hash).remove(&(name.tenant, name.resource, name.key.clone()));
        if let Some(flight) = gone {
            flight.outdated.store(true, Ordering::SeqCst);
        }
    }

    fn lead(&self, destination: Destination, hash: u64, flight: Arc<Flight>) -> Part<'_> {
        Part::Lead(Lead { flights: self, destination: Some(destination), hash, flight })
    }

    fn gate(&self, hash: u64) -> MutexGuard<'_, Gate> {
        // The remainder fits.
        let at = (hash >> 7) as usize % GATES;
        self.0[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|gate| gate.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

impl Lead<'_> {
    /// Whether the thing was forgotten by name since the load began.
    pub(crate) fn is_outdated(&self) -> bool {
        self.flight.outdated.load(Ordering::SeqCst)
    }

    /// Hands what was loaded to those who wait.
    pub(crate) fn land(mut self, landed: Landed) {
        self.leave(landed);
    }

    fn leave(&mut self, landed: Landed) {
        let Some(destination) = self.destination.take() else { return };
        let mut gate = self.flights.gate(self.hash);
        // A later load may have taken the place.
        if gate.get(&destination).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            gate.remove(&destination);
        }
        drop(gate);
        self.flight.landed.send_replace(Some(landed));
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.leave(Landed::Abandoned);
    }
}

/// What came of somebody else's load.
pub(crate) async fn landed(mut wait: watch::Receiver<Option<Landed>>) -> Option<Landed> {
    // The sender lives until it has spoken; if not, it is as good as abandoned.
    let landed = tokio::time::timeout(PATIENCE, wait.wait_for(Option::is_some)).await.ok()?;
    Some(landed.ok().and_then(|landed| landed.clone()).unwrap_or(Landed::Abandoned))
}
