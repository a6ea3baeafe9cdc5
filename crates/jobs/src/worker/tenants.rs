//! From a tenant's number in a row to what the catalog says of it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use insula_catalog::{Catalog, Route};
use insula_core::{MoveState, TenantId, TenantState};

use super::DatabaseName;

/// The catalog's tenants by number.
pub(crate) struct Tenants {
    catalog: Catalog,
    known: RwLock<(i64, HashMap<i64, TenantId, foldhash::fast::RandomState>)>,
}

/// Why a tenant's job may not run now, and when to look again. It goes back, and its attempt is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotNow {
    pub(crate) reason: &'static str,
    pub(crate) delay: Duration,
}

impl Tenants {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog, known: RwLock::default() }
    }

    /// The route of a tenant whose job lies in a database, when its job may run. The rule: a suspended tenant's jobs are held (by the database,
    /// too) until it is resumed; those of one that lives elsewhere by now, that has just been switched over to where it moves, or that this process does
    /// not know yet, go back and are looked at again later; those of a deleted one are never run.
    pub(crate) fn at(&self, no: i64, here: &DatabaseName) -> Result<Arc<Route>, NotNow> {
        let not_now = |reason, seconds| NotNow { reason, delay: Duration::from_secs(seconds) };
        let route = self.find(no).ok_or_else(|| not_now("its tenant is not known to this worker", 5))?;
        let placement = &route.placement;
        if route.state() != TenantState::Active {
            return Err(not_now("its tenant is not active", 10));
        }
        if placement.state == MoveState::Cutover {
            return Err(not_now("its tenant is in the midst of a move", 2));
        }
        if placement.cell != here.cell || placement.database != here.database {
            return Err(not_now("its tenant lives elsewhere", 10));
        }
        Ok(route)
    }

    /// A tenant's weight by its plan; 1 while it is not known.
    pub(crate) fn weight(&self, no: i64) -> u32 {
        self.find(no).map_or(1, |route| route.plan.tier.weight)
    }

    fn find(&self, no: i64) -> Option<Arc<Route>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.1.get(&no).copied();
        let revision = known.0;
        drop(known);
        if let Some(route) = found.and_then(|id| self.catalog.by_id(id)) {
            return Some(route.arc());
        }
        // Numbers are never given twice, so only what was not there before is looked for.
        if revision == self.catalog.revision() && revision != 0 {
            return None;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let revision = self.catalog.revision();
        if known.0 != revision || known.0 == 0 {
            known.1 = self.catalog.look(|view| view.routes().map(|route| (route.no.get(), route.id)).collect());
            known.0 = revision;
        }
        let found = known.1.get(&no).copied();
        drop(known);
        found.and_then(|id| self.catalog.by_id(id)).map(|route| route.arc())
    }
}
