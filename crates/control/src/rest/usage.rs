//! `/v1/usage`, `/v1/tenants/{tenant}/usage`.

use axum::extract::State;
use insula_api::usage::{TenantUsage, UsageBatch, UsageQuery, UsageReceipt};

use super::Refused;
use super::answer::{Answer, ok};
use super::input::{Json, Path, Query};
use crate::handle::Control;

/// Largest batch, bytes.
const MAX_BATCH: usize = 4 << 20;

/// Takes what a data plane counted. The same batch and part again changes nothing.
#[utoipa::path(
    post, path = "/v1/usage", tag = "usage", request_body = UsageBatch,
    responses((status = 200, body = UsageReceipt), Refused), security(("key" = ["edge"]))
)]
pub(super) async fn add_usage(State(control): State<Control>, Json(batch): Json<UsageBatch, MAX_BATCH>) -> Answer {
    ok(&control.add_usage(&batch).await?)
}

/// What a tenant used, by the hour.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/usage", tag = "usage",
    params(("tenant" = String, Path, description = "Id or slug"), UsageQuery),
    responses((status = 200, body = TenantUsage), Refused), security(("key" = ["read"]))
)]
pub(super) async fn show_usage(
    State(control): State<Control>,
    Path(tenant): Path<String>,
    Query(query): Query<UsageQuery>,
) -> Answer {
    ok(&control.usage(&tenant, &query).await?)
}
