//! Who did what: the audit log, and what the SQL kit's lint finds.

use chrono::{DateTime, Utc};
use insula_core::{CellName, TenantId};
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
    /// This action (`tenant.create`).
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
    /// The first entry that does not fit.
    pub first_bad: Option<i64>,
}

/// Where to look for leaks: everywhere unless given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LintQuery {
    /// In the databases of this cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub cell: Option<CellName>,
    /// In the database of this tenant (id or slug).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// Something in a tenant database that could leak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LintFinding {
    /// The rule that it breaks.
    pub rule: String,
    /// The table, view, constraint, function or role.
    pub object: String,
    /// What is wrong, and how to mend it.
    pub detail: String,
    /// `error` or `warning`.
    pub severity: String,
}

/// What the SQL kit's lint found in one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LintedDatabase {
    /// The cell.
    pub cell: CellName,
    /// The database.
    pub database: String,
    /// Empty: nothing leaks.
    pub findings: Vec<LintFinding>,
}

/// What the lint found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LintReport {
    /// No database leaks.
    pub clean: bool,
    /// Each database that was looked at.
    pub databases: Vec<LintedDatabase>,
}
