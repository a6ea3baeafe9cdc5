//! Configuration documents: named JSON in immutable versions, rolled out step by step.

use chrono::{DateTime, Utc};
use insula_core::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Puts a new version of a document. It holds for nobody until it is rolled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutDocument {
    /// What it says: any JSON, at most 256 KiB. A secret does not belong here.
    #[schema(value_type = Object)]
    pub value: Value,
    /// Why, for whoever reads the list of versions.
    #[serde(default)]
    #[schema(max_length = 500)]
    pub note: String,
}

/// Rolls a version out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Which version; the newest unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub version: Option<i64>,
    /// To all: this ends a rollout that is under way.
    #[serde(default)]
    pub all: bool,
    /// To so many of a hundred tenants, chosen by a stable hash: a greater number keeps those that a smaller one had.
    #[serde(default)]
    #[schema(maximum = 100)]
    pub percent: u8,
    /// To these tenants besides, by id or slug.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1000)]
    pub tenants: Vec<String>,
}

/// A document, and what is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Document {
    /// Its name.
    pub name: String,
    /// The newest version, whether in force or not.
    pub newest: i64,
    /// The version in force for all but the canaries; null: none yet.
    pub stable: Option<i64>,
    /// The one before that: where a rollback leads when no rollout is under way.
    pub previous: Option<i64>,
    /// The rollout under way.
    pub canary: Option<Canary>,
    /// Grows with every change of what is in force; the `ETag` is `"<version>"`.
    pub version: i64,
    /// When what is in force last changed.
    pub updated_at: DateTime<Utc>,
}

/// A rollout under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Canary {
    /// Which version.
    pub version: i64,
    /// How many of a hundred tenants have it.
    pub percent: u8,
    /// Who has it besides.
    pub tenants: Vec<TenantId>,
}

/// A version of a document. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DocumentVersion {
    /// The document.
    pub name: String,
    /// Its number, from 1.
    pub version: i64,
    /// What it says.
    #[schema(value_type = Object)]
    pub value: Value,
    /// Why it was put.
    pub note: String,
    /// Who put it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
}
