//! The connections to one database as one login role.
//!
//! Always: an idle connection is outside any transaction, in step with the protocol, and remembers nothing of whom it served
//! but its prepared statements and the timeouts written in [`Conn::timeouts`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use insula_catalog::Replica;
use insula_core::{CellKey, CellName, GrantKey, TenantNo, Tier};
use insula_planner::circuit::Circuit;

use crate::circuit;
use crate::conn::{Conn, Timeouts};
use crate::lane::Line;
use crate::standby::Standby;
use crate::turnstile::Turnstile;

/// Which pool: `login` is the schema's name for `schema` tenants, whose databases have a login for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) cell: CellName,
    pub(crate) database: Arc<str>,
    pub(crate) login: Option<Arc<str>>,
    /// A standby of the cell's server instead of the server itself.
    pub(crate) replica: Option<Replica>,
}

pub(crate) struct Pool {
    pub(crate) key: PoolKey,
    /// Serves many tenants, each transaction bound by a grant; otherwise one tenant, bound by its login.
    pub(crate) shared: bool,
    pub(crate) turnstile: Arc<Turnstile>,
    /// Whether its database is worth asking; all pools on one standby ask one.
    pub(crate) circuit: Arc<Circuit>,
    /// Where it is, when not on the cell's own server.
    pub(crate) standby: Option<Arc<Standby>>,
    /// The tier that stands in the ledger of a pool with one tenant: it has nobody to share with.
    pub(crate) alone: Tier,
    grant_key: Mutex<Option<Arc<GrantKey>>>,
    /// For sqlx.
    pub(crate) conns: Shelf<Conn>,
    /// For the fast lane.
    pub(crate) lines: Shelf<Line>,
}

/// What a shelf must know of a connection.
pub(crate) trait Kept {
    fn born(&self) -> Instant;
    fn timeouts(&self) -> Timeouts;
    /// Whether it served this tenant of late: the database then has less to verify.
    fn knows(&self, no: TenantNo) -> bool;
}

/// Idle connections of one sort, the longest idle first.
pub(crate) struct Shelf<C>(Mutex<VecDeque<Idle<C>>>);

struct Idle<C> {
    conn: C,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(key: PoolKey, shared: bool, turnstile: Arc<Turnstile>, tier: &Tier, standby: Option<Arc<Standby>>) -> Self {
        let alone = Tier { pool_cap: 100, pool_guarantee: 0, ..tier.clone() };
        let (conns, lines) = (Shelf::new(), Shelf::new());
        let circuit = standby.as_ref().map_or_else(|| Arc::new(circuit::of_pool()), |standby| Arc::clone(&standby.circuit));
        Self { key, shared, turnstile, circuit, standby, alone, grant_key: Mutex::new(None), conns, lines }
    }

    /// Whether each transaction presents a grant. On a standby a login of one's own does so, too: what ends a suspended tenant's
    /// sessions on the server does not reach the standby, so its row there is looked at.
    pub(crate) const fn enters(&self) -> bool {
        self.shared || self.standby.is_some()
    }

    /// Whether it is on a database of one tenant.
    pub(crate) const fn is_alone(&self) -> bool {
        !self.shared && self.key.login.is_none()
    }

    /// The key that signs grants here; derived once for each key id.
    pub(crate) fn grant_key(&self, cell: &CellKey, kid: i32) -> Arc<GrantKey> {
        let mut kept = self.grant_key.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(key) if key.kid() == kid => Arc::clone(key),
            _ => Arc::clone(kept.insert(Arc::new(cell.grant_key(&self.key.database, kid)))),
        }
    }

    /// The cell has another key from now on.
    pub(crate) fn forget_key(&self) {
        *self.grant_key.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn idle_count(&self) -> usize {
        self.conns.lock().len() + self.lines.lock().len()
    }

    /// Since when the connection that is idle longest has been so.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        [self.conns.oldest(), self.lines.oldest()].into_iter().flatten().min()
    }

    /// Closes the connection that is idle longest; `false` when none is.
    pub(crate) async fn close_oldest(&self) -> bool {
        let (conns, lines) = (self.conns.oldest(), self.lines.oldest());
        let conn_first = conns.is_some_and(|c| lines.is_none_or(|l| c <= l));
        if conn_first && let Some(conn) = self.conns.pop_oldest() {
            conn.close().await;
            return true;
        }
        self.lines.pop_oldest().is_some()
    }

    /// Closes what is idle or alive for too long.
    pub(crate) async fn close_expired(&self, idle_timeout: Duration, max_lifetime: Duration) {
        drop(self.lines.take_expired(idle_timeout, max_lifetime));
        for conn in self.conns.take_expired(idle_timeout, max_lifetime) {
            conn.close().await;
        }
    }
}

impl<C: Kept> Shelf<C> {
    /// The connection used last among those with these timeouts, one that knows the tenant before others: caches are warm
    /// there, and the rest grow old and go.
    pub(crate) fn take_with(&self, timeouts: Timeouts, no: TenantNo) -> Option<C> {
        let mut idle = self.lock();
        let known = idle.iter().rposition(|i| i.conn.timeouts() == timeouts && i.conn.knows(no));
        let at = known.or_else(|| idle.iter().rposition(|i| i.conn.timeouts() == timeouts))?;
        idle.remove(at).map(|i| i.conn)
    }

    /// The connection used last, whatever its timeouts.
    pub(crate) fn take_any(&self) -> Option<C> {
        self.lock().pop_back().map(|i| i.conn)
    }

    /// Keeps a clean connection for the next.
    pub(crate) fn put(&self, conn: C, max_lifetime: Duration) {
        if conn.born().elapsed() < max_lifetime {
            self.lock().push_back(Idle { conn, since: Instant::now() });
        }
    }

    fn take_expired(&self, idle_timeout: Duration, max_lifetime: Duration) -> Vec<C> {
        let mut idle = self.lock();
        let (gone, kept): (Vec<_>, Vec<_>) =
            idle.drain(..).partition(|i| i.since.elapsed() >= idle_timeout || i.conn.born().elapsed() >= max_lifetime);
        idle.extend(kept);
        gone.into_iter().map(|i| i.conn).collect()
    }
}

impl<C> Shelf<C> {
    const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle<C>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops every connection: one of them was found dead.
    pub(crate) fn clear(&self) {
        let dead = std::mem::take(&mut *self.lock());
        drop(dead);
    }

    fn oldest(&self) -> Option<Instant> {
        self.lock().front().map(|i| i.since)
    }

    fn pop_oldest(&self) -> Option<C> {
        self.lock().pop_front().map(|i| i.conn)
    }
}
