//! Who has looked at a tenant's jobs lately, as the audit log was told.
//!
//! Always: bounded; and what is forgotten is told once more, never once less.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use insula_core::TenantId;

/// How long one line stands for.
const LATELY: Duration = Duration::from_secs(3600);

/// Pairs that are remembered.
const MOST: usize = 10_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Onlookers(Mutex<HashMap<(String, TenantId), Instant>>);

impl Onlookers {
    /// Whether the log is to be told.
    pub(crate) fn is_new(&self, actor: &str, tenant: TenantId, now: Instant) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(actor.to_owned(), tenant)).is_none_or(|told| now.duration_since(*told) >= LATELY)
    }

    /// The log was told.
    pub(crate) fn told(&self, actor: &str, tenant: TenantId, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST {
            seen.retain(|_, told| now.duration_since(*told) < LATELY);
        }
        if seen.len() >= MOST {
            seen.clear();
        }
        seen.insert((actor.to_owned(), tenant), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_and_tenant_is_told_of_once_an_hour() {
        let (seen, one, other, now) = (Onlookers::default(), TenantId::new(), TenantId::new(), Instant::now());
        assert!(seen.is_new("ops", one, now));
        seen.told("ops", one, now);
        assert!(!seen.is_new("ops", one, now));
        assert!(seen.is_new("ops", other, now) && seen.is_new("eve", one, now));
        assert!(seen.is_new("ops", one, now + LATELY));
    }

    #[test]
    fn there_is_an_end_to_remembering() {
        let seen = Onlookers::default();
        for _ in 0..MOST + 1 {
            seen.told("ops", TenantId::new(), Instant::now());
        }
        assert_eq!(seen.0.lock().unwrap().len(), 1);
    }
}
