//! `/v1/audit` and `/v1/lint`.

use axum::extract::State;
use insula_api::Page;
use insula_api::audit::{AuditEntry, AuditQuery, AuditVerdict, LintQuery, LintReport};

use super::answer::{Answer, ok};
use super::failure::Failure;
use super::input::Query;
use super::tenants::page_request;
use super::{Refused, wire};
use crate::handle::Control;
use crate::model::{AuditFilter, LintTarget};

/// Who did what, newest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditEntry>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_audit(State(control): State<Control>, Query(query): Query<AuditQuery>) -> Answer {
    let tenant = match query.tenant {
        Some(tenant) => Some(control.tenant(&tenant).await?.id),
        None => None,
    };
    let filter = AuditFilter { tenant, action: query.action };
    let found = control.audit(&filter, &page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, wire::audit))
}

/// Whether the audit log is whole. Reads all of it.
#[utoipa::path(
    get, path = "/v1/audit/verify", tag = "audit",
    responses((status = 200, body = AuditVerdict), Refused), security(("key" = ["read"]))
)]
pub(super) async fn verify_audit(State(control): State<Control>) -> Answer {
    let first_bad = control.verify_audit().await?;
    ok(&AuditVerdict { intact: first_bad.is_none(), first_bad })
}

/// Looks for everything in tenant databases that could leak.
#[utoipa::path(
    get, path = "/v1/lint", tag = "audit", params(LintQuery),
    responses((status = 200, body = LintReport), Refused), security(("key" = ["read"]))
)]
pub(super) async fn lint(State(control): State<Control>, Query(query): Query<LintQuery>) -> Answer {
    let target = match (query.cell, query.tenant) {
        (None, None) => LintTarget::All,
        (Some(cell), None) => LintTarget::Cell(cell),
        (None, Some(tenant)) => LintTarget::Tenant(tenant),
        (Some(_), Some(_)) => return Err(Failure::field("tenant", "give a cell or a tenant, not both")),
    };
    let databases: Vec<_> = control.lint(&target).await?.into_iter().map(wire::linted).collect();
    ok(&LintReport { clean: databases.iter().all(|d| d.findings.iter().all(|f| f.severity != "error")), databases })
}
