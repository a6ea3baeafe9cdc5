//! Operations and the audit log, as the control plane speaks of them.
//!
//! Not for: what an operation does (`operation`, `provision`).

use chrono::{DateTime, Utc};
use insula_core::{OperationId, TenantId};
use serde::{Deserialize, Serialize};

/// An operation's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Not begun.
    Pending,
    /// Under way.
    Running,
    /// Failed; what was done is being undone.
    Undoing,
    /// Done.
    Done,
    /// Failed, and nothing of it is left.
    Failed,
}

impl OperationState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn finished(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationError {
    /// Name of an [`insula_core::Kind`].
    pub kind: String,
    /// What happened, and what to do.
    pub detail: String,
}

/// An operation as the catalog has it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// `tenant.provision`, `tenant.suspend`, `tenant.resume`, `tenant.delete`, `cell.prepare`, `bundle.apply`.
    pub kind: String,
    /// Whom it is about.
    pub tenant: Option<TenantId>,
    /// Its life.
    pub state: OperationState,
    /// The step at hand.
    pub step: String,
    /// Steps done.
    pub steps_done: i32,
    /// Steps there are.
    pub steps_total: i32,
    /// What it made.
    pub output: Option<serde_json::Value>,
    /// Why it failed, or why it waits to try again.
    pub error: Option<OperationError>,
    /// Tries of the step at hand that failed and may yet work.
    pub attempts: i32,
    /// Who asked for it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Last sign of life.
    pub updated_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Which operations.
#[derive(Clone, Debug, Default)]
pub struct OperationFilter {
    /// Only about this tenant.
    pub tenant: Option<TenantId>,
    /// Only in this state.
    pub state: Option<OperationState>,
    /// Only of this kind.
    pub kind: Option<String>,
}

/// One thing that happened in an operation.
#[derive(Clone, Debug)]
pub struct OperationEvent {
    /// Grows within the operation.
    pub seq: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// In which step.
    pub step: String,
    /// `started`, `done`, `failed`, `undone`, `progress` or `resumed`.
    pub what: String,
    /// More, for people.
    pub detail: String,
}

/// One line of the audit log.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// Without gaps.
    pub seq: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To whom.
    pub tenant: Option<TenantId>,
    /// To what.
    pub target: String,
    /// More; never a secret.
    pub detail: serde_json::Value,
    /// SHA-256 over the row and the hash before it.
    pub hash: Vec<u8>,
}

/// Which lines of the audit log.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only about this tenant.
    pub tenant: Option<TenantId>,
    /// Only of this action.
    pub action: Option<String>,
}
