//! Operations: durable, resumable lifecycle work.

use chrono::{DateTime, Utc};
use insula_core::{OperationId, TenantId};
use serde::{Deserialize, Serialize};

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Not begun.
    Pending,
    /// Its steps are being done.
    Running,
    /// A step failed; what was done is being undone.
    Undoing,
    /// Ended well.
    Done,
    /// Ended, with nothing left behind.
    Failed,
}

impl OperationState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }

    /// As the catalog writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// A durable piece of lifecycle work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it does: `tenant.provision`, `tenant.suspend`, `tenant.resume`, `tenant.delete`, `cell.prepare`, `bundle.apply`.
    pub kind: String,
    /// The tenant it is about, when it is about one.
    pub tenant: Option<TenantId>,
    /// Where it stands.
    pub state: OperationState,
    /// The step at hand.
    pub step: String,
    /// Steps done.
    pub steps_done: i32,
    /// Steps in all.
    pub steps_total: i32,
    /// Tries of the step at hand that failed and may yet work.
    pub attempts: i32,
    /// What it made.
    #[schema(value_type = Option<Object>)]
    pub output: Option<serde_json::Value>,
    /// Why it failed, or last failed.
    pub error: Option<OperationError>,
    /// Whose key asked for it.
    pub created_by: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it last got on.
    pub updated_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationError {
    /// The kind of problem: the last part of a problem's `type`.
    pub kind: String,
    /// In words.
    pub detail: String,
}

/// Which operations, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OperationQuery {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<OperationState>,
    /// About this tenant (id or slug).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Most items to answer with: 1 to 500, 50 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Something that happened in an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationEvent {
    /// Grows.
    pub seq: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// In which step.
    pub step: String,
    /// `started`, `done`, `failed`, `undone`, `progress` or `resumed`.
    pub what: String,
    /// In words.
    pub detail: String,
}

/// What happened since, and where the operation stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationEvents {
    /// The operation after these events.
    pub operation: Operation,
    /// In order.
    pub events: Vec<OperationEvent>,
}

/// Which events; how long to wait for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only events after this `seq`; 0 is all.
    #[serde(default)]
    #[param(minimum = 0)]
    pub after: i64,
    /// When there is none and the operation goes on, wait this many seconds for one (at most 30).
    #[serde(default)]
    #[param(maximum = 30)]
    pub wait: u32,
}
