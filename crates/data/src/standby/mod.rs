//! Standbys of cells' servers, and what is proven of them.
//!
//! For: knowing, from memory alone, whether a read may go to a standby. Not for: asking one whether it keeps up, which [`watch`]
//! does beside the requests.
//!
//! Always: a standby counts as fresh only by a proof, never by its own word: at a moment of this process's own clock the server's
//! log stood somewhere, and the standby has replayed it to there. So no clock is compared with another; a server that writes
//! nothing is no special case; and a standby that is cut off from its server, or this process from either, proves nothing and is
//! left alone when the last proof has aged. A proof holds for connections that were open when it was made: a standby that was
//! restarted since may stand further back for a moment.

mod position;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use insula_catalog::{Catalog, Cell, Replica};
use insula_core::CellName;
use insula_planner::circuit::Circuit;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch as cell};

use crate::circuit;
use crate::pools::Pools;

/// A standby that nobody wanted to read from for so long is not watched any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// What was found out last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof {
    /// Everything that was committed before is there.
    pub(crate) shows: Instant,
    /// The standby was asked not before: whoever was connected by then sees what was found.
    pub(crate) asked: Instant,
}

/// One standby.
#[derive(Debug)]
pub(crate) struct Standby {
    pub(crate) cell: CellName,
    pub(crate) address: Replica,
    /// Whether it is worth asking; one for all databases on it.
    pub(crate) circuit: Arc<Circuit>,
    proof: cell::Sender<Option<Proof>>,
    began: Instant,
    /// When it was last wanted, in seconds since `began`.
    wanted: AtomicU64,
    watched: AtomicBool,
    removed: AtomicBool,
    /// A proof is wanted at once.
    hurry: Notify,
}

impl Standby {
    fn new(cell: CellName, address: Replica) -> Self {
        Self {
            cell,
            address,
            circuit: Arc::new(circuit::of_pool()),
            proof: cell::Sender::new(None),
            began: Instant::now(),
            wanted: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            hurry: Notify::new(),
        }
    }

    /// What is proven now.
    pub(crate) fn proof(&self) -> Option<Proof> {
        *self.proof.borrow()
    }

    /// A proof for a connection that is open since `born`: the one that there is, else the next.
    pub(crate) async fn proof_for(&self, born: Instant) -> Option<Proof> {
        let mut proofs = self.proof.subscribe();
        loop {
            match *proofs.borrow_and_update() {
                Some(proof) if proof.asked >= born => return Some(proof),
                Some(_) => self.hurry.notify_one(),
                None => return None,
            }
            proofs.changed().await.ok()?;
        }
    }

    fn prove(&self, proof: Option<Proof>) {
        self.proof.send_replace(proof);
    }

    /// Somebody wants to read from it.
    fn want(self: &Arc<Self>, pools: &Arc<Pools>) {
        let now = self.began.elapsed().as_secs();
        // Look before writing, so that the line stays shared between cores.
        if self.wanted.load(Ordering::Relaxed) != now {
            self.wanted.store(now, Ordering::Relaxed);
        }
        if !self.watched.load(Ordering::Relaxed) && !self.watched.swap(true, Ordering::AcqRel) {
            pools.standbys.runtime.spawn(watch::follow(Arc::downgrade(self), Arc::downgrade(pools)));
        }
    }

    fn is_forgotten(&self) -> bool {
        let wanted = Duration::from_secs(self.wanted.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(wanted) > FORGOTTEN_AFTER
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// It is no replica of the cell any more.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }
}

/// The standbys of one cell.
#[derive(Debug)]
pub(crate) struct Group {
    standbys: Box<[Arc<Standby>]>,
    turn: AtomicUsize,
    pub(crate) counts: Arc<Counts>,
}

/// Where the reads of a cell went that might have gone to a standby.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) replica: AtomicU64,
    pub(crate) primary: AtomicU64,
}

impl Group {
    /// Those that show everything that was committed before `since`, another one first each time.
    pub(crate) fn fresh(&self, pools: &Arc<Pools>, since: Instant) -> impl Iterator<Item = &Arc<Standby>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.standbys.len().max(1);
        let (later, first) = self.standbys.split_at(turn);
        self.standbys.iter().for_each(|standby| standby.want(pools));
        first.iter().chain(later).filter(move |standby| standby.proof().is_some_and(|proof| proof.shows >= since))
    }

    pub(crate) fn all(&self) -> &[Arc<Standby>] {
        &self.standbys
    }
}

/// The standbys that this process has met.
#[derive(Debug)]
pub(crate) struct Standbys {
    groups: RwLock<HashMap<CellName, Arc<Group>>>,
    runtime: Handle,
}

impl Standbys {
    /// Must be called inside a Tokio runtime: standbys are watched there.
    pub(crate) fn new() -> Self {
        Self { groups: RwLock::default(), runtime: Handle::current() }
    }

    /// The standbys of a cell, as the catalog names them now; `None` when it has none.
    pub(crate) fn of(&self, cell: &Cell) -> Option<Arc<Group>> {
        if cell.replicas.is_empty() {
            return None;
        }
        let is_this = |group: &&Arc<Group>| group.standbys.iter().map(|s| &s.address).eq(cell.replicas.iter());
        if let Some(group) = self.groups.read().unwrap_or_else(PoisonError::into_inner).get(&cell.name).filter(is_this) {
            return Some(Arc::clone(group));
        }
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let old = groups.get(&cell.name);
        let known = |address: &Replica| old.and_then(|old| old.standbys.iter().find(|s| s.address == *address)).cloned();
        let standby = |address: &Replica| Arc::new(Standby::new(cell.name.clone(), address.clone()));
        let standbys = cell.replicas.iter().map(|address| known(address).unwrap_or_else(|| standby(address))).collect();
        let counts = old.map(|old| Arc::clone(&old.counts)).unwrap_or_default();
        let group = Arc::new(Group { standbys, turn: AtomicUsize::new(0), counts });
        if let Some(old) = groups.insert(cell.name.clone(), Arc::clone(&group)) {
            remove(old.standbys.iter().filter(|s| !cell.replicas.contains(&s.address)));
        }
        Some(group)
    }

    /// Every cell's, at this moment.
    pub(crate) fn all(&self) -> Vec<(CellName, Arc<Group>)> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.iter().map(|(cell, group)| (cell.clone(), Arc::clone(group))).collect()
    }

    /// Lets go of standbys that the catalog does not name any more, though nobody reads there.
    pub(crate) fn forget_removed(&self, catalog: &Catalog) {
        for (name, group) in self.all() {
            match catalog.cell(&name).filter(|cell| !cell.replicas.is_empty()) {
                Some(cell) => drop(self.of(&cell)),
                None => {
                    remove(group.standbys.iter());
                    self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
                }
            }
        }
    }
}

fn remove<'a>(standbys: impl Iterator<Item = &'a Arc<Standby>>) {
    for standby in standbys {
        standby.removed.store(true, Ordering::Relaxed);
        standby.prove(None);
        standby.hurry.notify_one();
    }
}
