//! Who did what: the audit log, and what the SQL kit's lint finds.

use chrono::{DateTime, Utc};
use insula_core::TenantId;
use serde::{Deserialize, Serialize};

/// One deed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditEntry {
    /// Counts up without a gap.
    pub seq: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who: the name of a key, or a part of the system.
    pub actor: String,
    /// What: `tenant.create`, `db.grant`, `security.cross_tenant`, ...
    pub action: String,
    /// To which tenant.
    pub tenant: Option<TenantId>,
    /// To what else.
    pub target: String,
    /// The particulars; never a secret.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
    /// SHA-256 over this entry and the hash before it, hexadecimal.
    pub hash: String,
}

/// Which deeds, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// To this tenant (id or slug).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// By this actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// This action, or all that begin with it when it ends with a dot (`tenant.`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Most items to answer with: 1 to 500, 50 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Whether the log is whole: each entry carries the hash of the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditVerdict {
    /// No entry is missing or changed.
    pub intact: bool,
    /// Entries in the log.
    pub entries: i64,
    /// The first entry that does not fit.
    pub first_bad: Option<i64>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It leaks, or could.
    Error,
    /// It does not leak, and should not stay so.
    Warning,
}

/// Something in a tenant database that could leak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LintFinding {
    /// The cell.
    pub cell: String,
    /// The database.
    pub database: String,
    /// The rule that it breaks.
    pub rule: String,
    /// The table, view, constraint, function or role.
    pub object: String,
    /// What is wrong, and how to mend it.
    pub detail: String,
    /// How bad.
    pub severity: Severity,
}

/// What the lint found in every database that holds tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LintReport {
    /// Databases looked at.
    pub databases: u32,
    /// What was found; empty is good.
    pub findings: Vec<LintFinding>,
}
