//! How the whole fares, in one answer.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The control plane at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// Version of the program that answers.
    pub version: String,
    /// The catalog's revision: grows with every change that a data plane must know.
    pub revision: i64,
    /// Tenants by state.
    pub tenants: BTreeMap<String, i64>,
    /// Cells by state.
    pub cells: BTreeMap<String, i64>,
    /// Operations by state; `failed` counts those of the last day.
    pub operations: BTreeMap<String, i64>,
    /// Ready-made databases that wait for a tenant.
    pub warm_databases: i64,
    /// The application's last migration; null before a bundle was handed in.
    pub schema_version: Option<i64>,
    /// The control plane's clock.
    pub now: DateTime<Utc>,
}

/// Alive, or ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}
