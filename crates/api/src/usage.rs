//! What tenants used, by the hour.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Most entries of one batch.
pub const MOST_ENTRIES: usize = 5_000;

/// How much was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Amounts {
    /// Requests.
    pub requests: u64,
    /// Bytes of requests' bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
    /// CPU time of handlers, microseconds.
    pub cpu_us: u64,
    /// Time for which database connections were held, microseconds.
    pub database_us: u64,
    /// Rows that the database gave or changed.
    pub rows: u64,
}

/// What a data plane counted. Sent again, it is not counted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageBatch {
    /// Names the batch; made by the sender.
    pub id: Uuid,
    /// Parts of a large batch have the same id and numbers from 0.
    #[serde(default)]
    #[schema(maximum = 2_147_483_647)]
    pub part: u32,
    /// The figures.
    #[schema(max_items = 5_000)]
    pub entries: Vec<UsageEntry>,
}

/// One tenant's part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageEntry {
    /// The tenant's number, as data planes know it.
    #[schema(minimum = 1)]
    pub tenant_no: i64,
    /// In which hour: its beginning.
    pub hour: DateTime<Utc>,
    /// How much.
    pub used: Amounts,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UsageReceipt {
    /// It had arrived before: nothing was counted now.
    pub repeated: bool,
    /// Entries of tenants that there never were; they are not counted.
    pub unknown: u64,
}

/// Which hours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// From this moment on; the last 24 hours when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// Up to this one; up to now when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
}

/// What one tenant used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TenantUsage {
    /// By hour, oldest first; hours without use are left out.
    pub hours: Vec<UsageHour>,
    /// Of all these hours.
    pub total: Amounts,
}

/// An hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UsageHour {
    /// Its beginning.
    pub hour: DateTime<Utc>,
    /// How much.
    pub used: Amounts,
}
