//! The signed contexts of this process: those that it believes, and those that it signs for the services it calls.
//!
//! Always: which audiences are ours and with which keys we sign follows from the key file, so that a process that is given a cell
//! serves it at once, and one that was not given it can neither serve it nor speak for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use insula_core::token::{ContextKeys, KeySet, audience};
use insula_core::{CellName, KeyRing};
use insula_http::identity::{ContextSigner, Verifier};

/// Tokens that a process remembers for its calls, a cell.
const MOST: usize = 1 << 12;

#[derive(Debug)]
pub(crate) struct Contexts {
    /// Without it nothing is believed, and tenants are found by their hosts.
    verifier: Option<Arc<Verifier>>,
    /// The cell that this process belongs to.
    cell: Option<CellName>,
    signers: ArcSwap<BTreeMap<CellName, Arc<ContextSigner>>>,
}

impl Contexts {
    /// For requests that `verifier` believes, of the cells that this process was given.
    pub(crate) fn new(verifier: Option<Arc<Verifier>>, cell: Option<CellName>, keys: &KeyRing) -> Self {
        let contexts = Self { verifier, cell, signers: ArcSwap::default() };
        contexts.replace_keys(keys);
        contexts
    }

    /// Serves, believes and signs for the cells of this ring.
    pub(crate) fn replace_keys(&self, ring: &KeyRing) {
        let (mut public, mut signers) = (BTreeMap::new(), BTreeMap::new());
        for cell in ring.cells() {
            let Ok(key) = ring.cell(cell).and_then(insula_core::CellKey::context_key) else { continue };
            public.insert(cell.clone(), KeySet::new([*key.public()]));
            if let Some(keys) = ContextKeys::new([(0, key)]) {
                signers.insert(cell.clone(), Arc::new(ContextSigner::new(keys, &audience(cell), MOST)));
            }
        }
        if let Some(verifier) = &self.verifier {
            let served: BTreeSet<_> = ring.cells().chain(&self.cell).map(audience).collect();
            verifier.serve(served.into_iter().collect());
            verifier.trust_cells(public);
        }
        self.signers.store(Arc::new(signers));
    }

    pub(crate) fn verifier(&self) -> Option<&Arc<Verifier>> {
        self.verifier.as_ref()
    }

    /// Who signs for tenants of this cell; `None` when this process was not given it.
    pub(crate) fn signer(&self, cell: &CellName) -> Option<Arc<ContextSigner>> {
        self.signers.load().get(cell).cloned()
    }
}
