//! What keeps failing is not asked for a while: a circuit for each database, and one for each tenant whom a database refuses.
//!
//! A dead database fails at once instead of holding connections' places, which tenants of other databases share, for as long as a
//! connection may take to fail. A tenant whose grants or login are refused (a disabled key, a wrong one) is its own circuit, in a
//! shared database as in its own. Always: a circuit that is open is probed by one transaction at a time, and a probe that nobody heard of is no verdict.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use insula_catalog::Route;
use insula_core::TenantNo;
use insula_planner::breaker::{Breaker, Policy, Probed, Verdict};
use insula_planner::circuit::Circuit;

use crate::error::Error;
use crate::pool::Pool;
use crate::standby::Standby;

const SECOND: u64 = 1_000_000_000;

/// A database comes back within seconds, and a probe costs one connection: short pauses.
const POLICY: Policy = Policy {
    in_a_row: 5,
    percent: 80,
    volume: 20,
    window: 10 * SECOND,
    pause: SECOND / 10,
    longest_pause: 2 * SECOND,
    probes: 1,
};

/// Tenants that are refused at once; more than that, and the fault is not theirs.
const MOST_TENANTS: usize = 10_000;

/// The circuits of a process's tenants; those of databases lie in their pools.
#[derive(Debug)]
pub(crate) struct Circuits {
    began: Instant,
    /// Tenants that were refused of late. Empty nearly always: then nothing is locked.
    refused: Mutex<HashMap<TenantNo, Breaker>>,
    count: AtomicUsize,
}

/// The right to ask a database. Dropped untold, it says nothing.
pub(crate) struct Ticket<'a> {
    circuits: &'a Circuits,
    pool: Arc<Pool>,
    /// Whose circuit it is about, besides.
    tenant: Option<TenantNo>,
    pool_probe: bool,
    tenant_probe: bool,
}

/// The circuit of a new pool.
pub(crate) fn of_pool() -> Circuit {
    Circuit::new(POLICY)
}

impl Circuits {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), refused: Mutex::default(), count: AtomicUsize::new(0) }
    }

    /// May this tenant's database be asked?
    pub(crate) fn ask(&self, pool: &Arc<Pool>, route: &Route) -> Result<Ticket<'_>, Error> {
        let now = self.now();
        let open = |after: u64| Error::CircuitOpen {
            cell: route.placement.cell.clone(),
            database: route.placement.database.clone(),
            retry_after: Duration::from_nanos(after),
        };
        // A standby may not know of a tenant's login yet: what it says of a tenant is no verdict.
        let tenant = pool.standby.is_none().then_some(route.no);
        let mut ticket = Ticket { circuits: self, pool: Arc::clone(pool), tenant, pool_probe: false, tenant_probe: false };
        match pool.circuit.ask(now) {
            Verdict::Pass => {}
            Verdict::Probe => ticket.pool_probe = true,
            Verdict::Refuse(after) => return Err(open(after)),
        }
        match tenant.and_then(|tenant| self.tenant(tenant, |breaker| breaker.ask(now))) {
            None | Some(Verdict::Pass) => Ok(ticket),
            Some(Verdict::Probe) => {
                ticket.tenant_probe = true;
                Ok(ticket)
            }
            Some(Verdict::Refuse(after)) => Err(open(after)),
        }
    }

    /// A standby did not open a transaction in time.
    pub(crate) fn missed(&self, standby: &Standby) {
        let now = self.now();
        if standby.circuit.failed(now, chance(now)) {
            tracing::warn!(cell = %standby.cell, replica = %standby.address, "a replica's circuit is open: it does not answer in time");
            metrics::counter!("insula_circuit_opened_total", "dependency" => "replica").increment(1);
        }
    }

    /// Does something with a tenant's circuit, when it has one.
    fn tenant<R>(&self, tenant: TenantNo, f: impl FnOnce(&mut Breaker) -> R) -> Option<R> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&tenant).map(f)
    }

    /// The tenant is served: nothing need be known of it.
    fn forget(&self, tenant: TenantNo) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.remove(&tenant);
        self.count.store(refused.len(), Ordering::Release);
    }

    fn refuse(&self, tenant: TenantNo, now: u64) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < MOST_TENANTS || refused.contains_key(&tenant) {
            refused.entry(tenant).or_insert_with(|| Breaker::new(POLICY)).record(now, 0, true, chance(now));
        }
        self.count.store(refused.len(), Ordering::Release);
    }

    fn now(&self) -> u64 {
        // 584 years fit.
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX / 2) + 1
    }
}

impl Ticket<'_> {
    /// The database opened a transaction for the tenant.
    pub(crate) fn sound(mut self) {
        let now = self.circuits.now();
        if std::mem::take(&mut self.pool_probe) {
            if self.pool.circuit.probed(now, Probed::Sound, 0) {
                tracing::info!(database = ?self.pool.key, "a database's circuit is closed again");
            }
        } else if self.pool.circuit.is_closed() {
            self.pool.circuit.sound(1);
        }
        self.tenant_probe = false;
        if let Some(tenant) = self.tenant {
            self.circuits.forget(tenant);
        }
    }

    /// There is no connection.
    pub(crate) fn failed(self, error: &Error) {
        self.failed_on(error, false);
    }

    /// There is no transaction. What a connection that was idle says of the database is nothing: it may have died long ago.
    pub(crate) fn failed_on(self, error: &Error, was_idle: bool) {
        match error.sqlstate().as_deref() {
            Some("28000" | "28P01") => self.refused(),
            _ if was_idle => {}
            // It has no place, or is starting.
            Some("53300" | "57P03") => self.away(),
            Some(_) => {}
            None if matches!(error, Error::Unavailable { .. }) || error.is_connection_loss() => self.away(),
            None => {}
        }
    }

    /// No connection could be had.
    fn away(mut self) {
        let now = self.circuits.now();
        if std::mem::take(&mut self.pool_probe) {
            self.pool.circuit.probed(now, Probed::Failed, chance(now));
        } else if self.pool.circuit.failed(now, chance(now)) {
            tracing::warn!(database = ?self.pool.key, "a database's circuit is open: it cannot be reached");
            metrics::counter!("insula_circuit_opened_total", "dependency" => "database").increment(1);
        }
    }

    /// The database answered, and refused the tenant's grant or login.
    fn refused(mut self) {
        let now = self.circuits.now();
        if std::mem::take(&mut self.pool_probe) {
            self.pool.circuit.probed(now, Probed::Sound, 0);
        }
        let Some(tenant) = self.tenant else { return };
        if std::mem::take(&mut self.tenant_probe) {
            self.circuits.tenant(tenant, |breaker| breaker.probed(now, Probed::Failed, chance(now)));
        } else {
            self.circuits.refuse(tenant, now);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let now = self.circuits.now();
        if self.pool_probe {
            self.pool.circuit.probed(now, Probed::Unknown, 0);
        }
        if let Some(tenant) = self.tenant.filter(|_| self.tenant_probe) {
            self.circuits.tenant(tenant, |breaker| breaker.probed(now, Probed::Unknown, 0));
        }
    }
}

/// Any number: the hasher's keys are random.
fn chance(now: u64) -> u32 {
    (RandomState::new().hash_one(now) >> 32) as u32
}
