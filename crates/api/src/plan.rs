//! Plans: what tenants can buy. Plans are data.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use insula_core::feature::Features;
use insula_core::{FeatureValue, Isolation, Limits, PlanName, Tier};
use serde::{Deserialize, Serialize};

/// Makes a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePlan {
    /// Its name.
    pub name: PlanName,
    /// Its scheduling class.
    pub tier: Tier,
    /// Where a tenant of this plan lives unless asked otherwise.
    pub isolation: Isolation,
    /// Its limits.
    #[serde(default)]
    pub limits: Limits,
    /// Its features.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, FeatureValue>)]
    pub features: Features,
}

/// A plan with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
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
    #[schema(value_type = BTreeMap<String, FeatureValue>)]
    pub features: Features,
    /// Grows with every change; the `ETag` is `"<version>"`.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// What becomes of one feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum FeatureChange {
    /// It gets this value.
    Set(FeatureValue),
    /// Null: it is taken away.
    Reset,
}

/// Changes a plan. What is absent stays. Tenants of the plan feel it at once; nobody moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePlan {
    /// Its scheduling class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Where new tenants of this plan live unless asked otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// All its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Features: a value sets, null takes away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, FeatureChange>,
}
