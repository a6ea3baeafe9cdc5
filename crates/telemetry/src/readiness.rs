//! Readiness: named gates, all of which must be open.
//!
//! Alive means that the process answers; ready means that work may be sent to it. A gate is closed until its owner opens it, and may close again (the
//! catalog went stale, the process drains). Always: a gate whose owner is gone is closed, whether he ended or died; reading never waits for the data path.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All gates of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    gates: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

impl Readiness {
    /// Without gates: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a gate, closed for now with the reason `starting`. One owner a name; a second gate of a name takes the first one's place.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        self.lock().insert(name, Some("starting".to_owned()));
        Gate { name, readiness: self.clone() }
    }

    /// Whether all gates are open.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(Option::is_none)
    }

    /// Gates by name, with the reason of those that are closed.
    #[must_use]
    pub fn gates(&self) -> BTreeMap<&'static str, Option<String>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One condition of readiness, held by the part that knows it.
#[derive(Debug)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Gate {
    /// The condition holds.
    pub fn open(&self) {
        self.readiness.lock().insert(self.name, None);
    }

    /// It does not; `reason` is shown on the admin port.
    pub fn close(&self, reason: impl Into<String>) {
        self.readiness.lock().insert(self.name, Some(reason.into()));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut gates = self.readiness.lock();
        gates.entry(self.name).or_default().get_or_insert_with(|| "gone".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_gate_is_open() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (catalog, data) = (readiness.gate("catalog"), readiness.gate("data"));
        assert!(!readiness.is_ready());
        catalog.open();
        data.open();
        assert!(readiness.is_ready());
        catalog.close("stale for 61 s");
        assert_eq!(readiness.gates()["catalog"].as_deref(), Some("stale for 61 s"));
        drop(catalog);
        assert_eq!(readiness.gates()["catalog"].as_deref(), Some("stale for 61 s"));
    }

    #[test]
    fn what_nobody_looks_after_any_more_is_not_ready() {
        let readiness = Readiness::new();
        let (serving, catalog) = (readiness.gate("serving"), readiness.gate("catalog"));
        serving.open();
        catalog.open();
        drop(serving);
        assert!(!readiness.is_ready());
        assert_eq!(readiness.gates()["serving"].as_deref(), Some("gone"));
        // One of the same name takes its place.
        let again = readiness.gate("serving");
        again.open();
        assert!(readiness.is_ready());
    }
}
