//! How the whole fares, in one answer.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::cell::Cell;

/// The control plane at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// Everything that is to be prepared at start is.
    pub ready: bool,
    /// Version of the program that answers.
    pub version: String,
    /// The catalog's revision: grows with every change that a data plane must know.
    pub revision: i64,
    /// The application's last migration; 0 before a bundle was handed in.
    pub schema_version: i64,
    /// Tenants by state.
    pub tenants: BTreeMap<String, i64>,
    /// Tenants by isolation.
    pub isolation: BTreeMap<String, i64>,
    /// Operations by state.
    pub operations: BTreeMap<String, i64>,
    /// All cells.
    pub cells: Vec<Cell>,
    /// Ready-made databases that wait for a tenant, by cell.
    pub warm_databases: BTreeMap<String, i64>,
    /// Workers that serve each cell's queue; a cell whose server does not answer within a second is left out.
    #[serde(default)]
    pub workers: BTreeMap<String, i64>,
    /// Events that wait to be delivered.
    pub outbox_waiting: i64,
    /// The first entry of the audit log that does not fit the chain: somebody has tampered.
    pub audit_broken_at: Option<i64>,
    /// The control plane's clock.
    pub now: DateTime<Utc>,
}

/// Alive, or ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}
