//! The connections to one database as one login role.
//!
//! Always: an idle connection is outside any transaction, in step with the protocol, and remembers nothing of whom it served
//! but its prepared statements and the timeouts written in [`Conn::timeouts`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use insula_core::CellName;

use crate::conn::{Conn, Timeouts};
use crate::turnstile::Turnstile;

/// Which pool: `login` is the schema's name for `schema` tenants, whose databases have a login for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) cell: CellName,
    pub(crate) database: Arc<str>,
    pub(crate) login: Option<Arc<str>>,
}

pub(crate) struct Pool {
    pub(crate) key: PoolKey,
    /// Serves many tenants, each transaction bound by a grant; otherwise one tenant, bound by its login.
    pub(crate) shared: bool,
    pub(crate) turnstile: Arc<Turnstile>,
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    conn: Conn,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(key: PoolKey, shared: bool, turnstile: Arc<Turnstile>) -> Self {
        Self { key, shared, turnstile, idle: Mutex::new(VecDeque::new()) }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection used last among those with these timeouts, else the one used last: caches are warm there, and the
    /// others grow old and are closed.
    pub(crate) fn take(&self, timeouts: Timeouts) -> Option<Conn> {
        let mut idle = self.idle();
        let at = idle.iter().rposition(|i| i.conn.timeouts == timeouts).or_else(|| idle.len().checked_sub(1))?;
        idle.remove(at).map(|i| i.conn)
    }

    /// Keeps a clean connection for the next.
    pub(crate) fn put(&self, conn: Conn, max_lifetime: Duration) {
        if conn.born.elapsed() < max_lifetime {
            self.idle().push_back(Idle { conn, since: Instant::now() });
        }
    }

    /// Drops every idle connection: one of them was found dead.
    pub(crate) fn clear(&self) {
        let dead = std::mem::take(&mut *self.idle());
        drop(dead);
    }

    pub(crate) fn idle_count(&self) -> usize {
        self.idle().len()
    }

    /// Since when the connection that is idle longest has been so.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.idle().front().map(|i| i.since)
    }

    /// Takes out the connection that is idle longest.
    pub(crate) fn pop_oldest(&self) -> Option<Conn> {
        self.idle().pop_front().map(|i| i.conn)
    }

    /// Takes out what is idle or alive for too long.
    pub(crate) fn take_expired(&self, idle_timeout: Duration, max_lifetime: Duration) -> Vec<Conn> {
        let mut idle = self.idle();
        let (gone, kept): (Vec<_>, Vec<_>) =
            idle.drain(..).partition(|i| i.since.elapsed() >= idle_timeout || i.conn.born.elapsed() >= max_lifetime);
        idle.extend(kept);
        gone.into_iter().map(|i| i.conn).collect()
    }
}
