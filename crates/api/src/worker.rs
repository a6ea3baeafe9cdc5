//! Workers: the processes that run jobs.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use insula_core::CellName;
use serde::{Deserialize, Serialize};

/// A worker, as one queue knows it. A process that serves several databases is one in each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Worker {
    /// The cell.
    pub cell: CellName,
    /// The database whose queue it is.
    pub database: String,
    /// Its number there, given once.
    pub no: i64,
    /// What it calls itself: `CELL/PROCESS` when its application does not say.
    pub name: String,
    /// Whether it gave a sign of life while this answer was made. One that did not is given up when its lease is over, and its jobs run
    /// elsewhere.
    pub alive: bool,
    /// How long after its last sign of life its jobs are given to others, milliseconds.
    pub lease_ms: i32,
    /// Signs of life so far.
    pub beats: i64,
    /// Since when it serves this queue.
    pub started_at: DateTime<Utc>,
    /// Jobs that it has.
    pub running: i64,
    /// The same by kind.
    pub kinds: BTreeMap<String, i64>,
}

/// All workers of shared databases, and of those that single tenants have while they are visited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Workers {
    /// By cell and database.
    pub items: Vec<Worker>,
    /// Cells whose database server did not answer: nothing is known of their workers.
    pub away: Vec<CellName>,
}

/// Which workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WorkerQuery {
    /// Of this cell; refused when it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub cell: Option<CellName>,
}
