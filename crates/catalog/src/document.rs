//! Configuration documents as data planes know them: what is in force, and for whom.
//!
//! Always: which tenants are canaries depends on the document's name, the tenant's id and the percentage alone, so every process
//! decides alike, and a greater percentage keeps those that a smaller one had.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use insula_core::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A named document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Its name.
    pub name: Arc<str>,
    /// What is in force for all but the canaries; `None` when nothing is yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<DocumentVersion>,
    /// The rollout that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// One version of a document. Never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentVersion {
    /// Its number, from 1.
    pub version: i64,
    /// What it says.
    pub value: Arc<Value>,
}

/// A version that some tenants have before the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// What they have.
    #[serde(flatten)]
    pub version: DocumentVersion,
    /// How many of a hundred tenants have it.
    #[serde(default)]
    pub percent: u8,
    /// Who has it besides.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tenants: BTreeSet<TenantId>,
}

impl Document {
    /// The version in force for a tenant.
    #[must_use]
    pub fn of(&self, tenant: TenantId) -> Option<&DocumentVersion> {
        match &self.canary {
            Some(canary) if canary.tenants.contains(&tenant) || bucket(&self.name, tenant) < u32::from(canary.percent) => {
                Some(&canary.version)
            }
            _ => self.stable.as_ref(),
        }
    }
}

/// A tenant's place among a hundred, for a document: SHA-256 over both, so that it is the same in every process and version.
#[must_use]
pub fn bucket(document: &str, tenant: TenantId) -> u32 {
    let mut hash = Context::new(&SHA256);
    hash.update(document.as_bytes());
    // No document's name holds one, so no two pairs read the same.
    hash.update(&[0]);
    hash.update(tenant.uuid().as_bytes());
    let digest = hash.finish();
    let number = digest.as_ref().iter().take(4).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    number % 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(percent: u8, tenants: BTreeSet<TenantId>) -> Document {
        let version = |version| DocumentVersion { version, value: Arc::new(Value::from(version)) };
        Document { name: "look".into(), stable: Some(version(1)), canary: Some(Canary { version: version(2), percent, tenants }) }
    }

    #[test]
    fn a_greater_percentage_keeps_whom_a_smaller_one_had() {
        let tenants: Vec<TenantId> = (0..2000).map(|_| TenantId::new()).collect();
        let canaries = |percent| -> BTreeSet<TenantId> {
            let document = document(percent, BTreeSet::new());
            tenants.iter().copied().filter(|id| document.of(*id).is_some_and(|v| v.version == 2)).collect()
        };
        let (none, some, more, all) = (canaries(0), canaries(10), canaries(50), canaries(100));
        assert!(none.is_empty() && all.len() == tenants.len());
        assert!((120..280).contains(&some.len()) && (880..1120).contains(&more.len()), "{} {}", some.len(), more.len());
        assert!(some.is_subset(&more));
    }

    #[test]
    fn listed_tenants_are_canaries_and_buckets_never_change() {
        let id: TenantId = "0190f8c0-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(document(0, BTreeSet::from([id])).of(id).unwrap().version, 2);
        assert_eq!(document(0, BTreeSet::new()).of(id).unwrap().version, 1);
        // Processes of other versions count on it.
        assert_eq!((bucket("look", id), bucket("gateway", id)), (74, 80));
    }
}
