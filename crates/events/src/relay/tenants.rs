//! From a tenant's number in a row to its id.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use insula_catalog::Catalog;
use insula_core::TenantId;

/// The catalog's tenants by number.
pub(crate) struct Tenants {
    catalog: Catalog,
    known: RwLock<(i64, HashMap<i64, TenantId>)>,
}

impl Tenants {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog, known: RwLock::default() }
    }

    /// Numbers are never given twice, so what was known once is true for good.
    pub(crate) fn id(&self, no: i64) -> Option<TenantId> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (revision, found) = (known.0, known.1.get(&no).copied());
        drop(known);
        if found.is_some() || revision == self.catalog.revision() {
            return found;
        }
        let revision = self.catalog.revision();
        let fresh: HashMap<_, _> = self.catalog.look(|view| view.routes().map(|route| (route.no.get(), route.id)).collect());
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.1.extend(fresh);
        known.0 = revision;
        known.1.get(&no).copied()
    }
}
