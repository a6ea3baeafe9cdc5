//! Plans: what a tenant bought. Plans are data; nothing in the code knows their names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::feature::{FeatureValue, Features, Override, Overrides, Temporary};
use crate::placement::Isolation;
use crate::slug::{PlanName, RouteClass};

/// A scheduling class: tenants of one tier share what the tier is guaranteed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The tier's name; plans of one name are one class.
    pub name: String,
    /// Relative weight wherever tiers compete, at least 1.
    pub weight: u32,
    /// Share of a database pool that is always there for the tier, in percent (0 to 100).
    pub pool_guarantee: u8,
    /// Share of a database pool that the tier may hold at most, in percent (1 to 100).
    pub pool_cap: u8,
}

/// Limits of a plan. Zero is not "no limit": every limit has a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest single SQL statement, milliseconds.
    pub statement_timeout_ms: u32,
    /// Longest pause inside an open transaction, milliseconds.
    pub idle_in_transaction_timeout_ms: u32,
    /// Longest wait for a database connection before the work is refused, milliseconds.
    pub acquire_timeout_ms: u32,
    /// Most database connections that one tenant may hold at once in one process.
    pub max_connections: u32,
    /// Largest request body, bytes.
    pub max_body_bytes: u64,
    /// Users a tenant may have.
    pub max_users: u32,
    /// Sustained requests per second.
    pub requests_per_second: u32,
    /// Requests above the sustained rate that may come at once.
    pub request_burst: u32,
    /// Most requests of one tenant that may be at work or waiting at once in one process.
    pub max_concurrent_requests: u32,
    /// Longest time to the head of an answer, milliseconds.
    pub request_timeout_ms: u32,
    /// Bytes of cache that one tenant may have in one process, and as many in the second level.
    pub max_cache_bytes: u64,
    /// Limits of single classes of routes, within the limits above.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub route_classes: BTreeMap<RouteClass, ClassLimits>,
}

/// What a plan says of one class of routes. Which routes are in it is said where they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClassLimits {
    /// Sustained requests of the class per second; the tenant's own rate alone when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Requests of the class that may come at once; as many as come in a second when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_burst: Option<u32>,
    /// Most requests of the class that one tenant may have at work at once in one process; its own maximum alone when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_requests: Option<u32>,
    /// How many requests one of the class counts for in the tenant's own rate, at least 1.
    pub cost: u32,
}

impl Default for ClassLimits {
    fn default() -> Self {
        Self { requests_per_second: None, request_burst: None, max_concurrent_requests: None, cost: 1 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_timeout_ms: 10_000,
            idle_in_transaction_timeout_ms: 10_000,
            acquire_timeout_ms: 2_000,
            max_connections: 4,
            max_body_bytes: 4 << 20,
            max_users: 25,
            requests_per_second: 50,
            request_burst: 100,
            max_concurrent_requests: 50,
            request_timeout_ms: 30_000,
            max_cache_bytes: 16 << 20,
            route_classes: BTreeMap::new(),
        }
    }
}

impl Limits {
    /// These limits with some fields replaced: a tenant's overrides, as the catalog holds them (a JSON object by field).
    ///
    /// # Errors
    /// When a field is unknown or its value does not fit.
    pub fn overridden(&self, by: &serde_json::Map<String, serde_json::Value>) -> Result<Self, serde_json::Error> {
        if by.is_empty() {
            return Ok(self.clone());
        }
        let mut all = serde_json::to_value(self)?;
        if let Some(fields) = all.as_object_mut() {
            fields.extend(by.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        serde_json::from_value(all)
    }
}

/// A plan as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name.
    pub name: PlanName,
    /// Its scheduling class.
    pub tier: Tier,
    /// Where a tenant of this plan lives unless asked otherwise.
    pub isolation: Isolation,
    /// Its limits.
    pub limits: Limits,
    /// Its features.
    #[schema(value_type = std::collections::BTreeMap<String, crate::feature::FeatureValue>)]
    pub features: Features,
    /// What a tenant has for a time instead; a plan as it is sold has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub temporary: BTreeMap<String, Temporary>,
}

impl Plan {
    /// This plan as a tenant has it that replaces some features.
    #[must_use]
    pub fn overridden(&self, by: &Overrides) -> Self {
        let mut plan = self.clone();
        for (name, by) in by {
            match by {
                Override::Value(value) => drop(plan.features.insert(name.clone(), value.clone())),
                Override::Temporary(temporary) => drop(plan.temporary.insert(name.clone(), temporary.clone())),
            }
        }
        plan
    }

    /// A feature's value at this moment; `None` when neither plan nor tenant says one. [`crate::Feature`] reads it as a type.
    #[must_use]
    pub fn feature(&self, name: &str, clock: &impl Clock) -> Option<&FeatureValue> {
        // Hardly anybody has one: then the clock is not looked at.
        let temporary = self.temporary.get(name).filter(|temporary| clock.unix_seconds() < temporary.until.timestamp());
        temporary.map(|temporary| &temporary.value).or_else(|| self.features.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_replace_fields_and_refuse_unknown_ones() {
        let by = |json: &str| serde_json::from_str(json).unwrap();
        let limits = Limits::default().overridden(&by(r#"{"max_users":7}"#)).unwrap();
        assert_eq!(limits, Limits { max_users: 7, ..Limits::default() });
        assert_eq!(Limits::default().overridden(&by("{}")).unwrap(), Limits::default());
        let classes = Limits::default().overridden(&by(r#"{"route_classes":{"export":{"cost":5}}}"#)).unwrap().route_classes;
        assert_eq!(classes.get("export"), Some(&ClassLimits { cost: 5, ..ClassLimits::default() }));
        for bad in [
            r#"{"max_user":7}"#,
            r#"{"max_users":-1}"#,
            r#"{"max_users":"many"}"#,
            r#"{"route_classes":{"export":{"price":1}}}"#,
            r#"{"route_classes":{"Export!":{}}}"#,
            r#"{"route_classes":{"default":{}}}"#,
        ] {
            assert!(Limits::default().overridden(&by(bad)).is_err(), "{bad}");
        }
    }
}
