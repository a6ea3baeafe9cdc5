//! `/v1/tenants`.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use insula_api::Page;
use insula_api::operation::Operation;
use insula_api::problem::kind_of_name;
use insula_api::tenant::{
    AdminLogin, CreateGrant, CreateTenant, GrantText, OverrideChange, Tenant, TenantCreated, TenantQuery, UpdateTenant, WaitQuery,
};
use insula_core::{Kind, OperationId};

use super::answer::{Answer, at, created, ok, versioned, with_replay};
use super::failure::Failure;
use super::idempotency::key_of;
use super::input::{IfMatch, Json, Path, Query};
use super::{Refused, wire};
use crate::auth::Caller;
use crate::error::Error;
use crate::handle::Control;
use crate::model::{self, OperationState, PageRequest, TenantFilter};

/// Longest that a call waits for an operation.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Tenants, oldest first.
#[utoipa::path(
    get, path = "/v1/tenants", tag = "tenants", params(TenantQuery),
    responses((status = 200, body = Page<Tenant>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_tenants(State(control): State<Control>, Query(query): Query<TenantQuery>) -> Answer {
    let TenantQuery { state, plan, cell, q, limit, cursor } = query;
    let found = control.tenants(&TenantFilter { state, plan, cell, text: q }, &page_request(limit, cursor)?).await?;
    ok(&wire::page(found, wire::tenant))
}

/// Makes a tenant. The answer has its admin's password, this once.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "tenants",
    params(WaitQuery, ("Idempotency-Key" = Option<String>, Header, description = "Done once under this key")),
    request_body = CreateTenant,
    responses(
        (status = 201, description = "Made", body = TenantCreated),
        (status = 202, description = "Being made: follow the operation", body = TenantCreated),
        Refused,
    ),
    security(("key" = ["provisioner"]))
)]
pub(super) async fn create_tenant(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<WaitQuery>,
    headers: HeaderMap,
    Json(body): Json<CreateTenant>,
) -> Answer {
    let key = key_of(&headers).map(|key| format!("{}/{key}", caller.key));
    let made = control.create_tenant(&caller.name, wire::create_tenant(body), key.as_deref()).await?;
    let operation = if query.wait { ended(&control, made.operation).await? } else { made.operation };
    let done = operation.state == OperationState::Done;
    let tenant = wire::tenant(control.tenant(&made.tenant.to_string()).await?);
    let location = format!("/v1/tenants/{}", tenant.id);
    let admin =
        AdminLogin { password_withheld: made.admin.password.is_none(), email: made.admin.email, password: made.admin.password };
    let answer = TenantCreated { tenant, admin, operation: operation.id };
    let told = if done { created(&location, &answer) } else { at(StatusCode::ACCEPTED, &location, &answer) };
    let admin = AdminLogin { password: None, password_withheld: true, ..answer.admin };
    with_replay(told, &TenantCreated { admin, ..answer })
}

/// One tenant, by id or slug.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path, description = "Id or slug")),
    responses((status = 200, body = Tenant, headers(("ETag" = String, description = "Its version"))), Refused),
    security(("key" = ["read"]))
)]
pub(super) async fn show_tenant(State(control): State<Control>, Path(tenant): Path<String>) -> Answer {
    let tenant = wire::tenant(control.tenant(&tenant).await?);
    versioned(&tenant, tenant.version)
}

/// Changes a tenant's name, plan, settings, features or limits; holds at once.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(
        ("tenant" = String, Path, description = "Id or slug"),
        ("If-Match" = String, Header, description = "The ETag that the change is made from; * for any"),
    ),
    request_body = UpdateTenant,
    responses((status = 200, body = Tenant, headers(("ETag" = String, description = "Its new version"))), Refused),
    security(("key" = ["admin"]))
)]
pub(super) async fn update_tenant(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    IfMatch(expected): IfMatch,
    Json(change): Json<UpdateTenant>,
) -> Answer {
    let now = control.tenant(&tenant).await?;
    // Whoever changes it between this reading and the writing is noticed by the version.
    let expected = expected.or(Some(now.version));
    let id = now.id.to_string();
    let changed = control.update_tenant(&caller.name, &id, merged(now, change), expected).await;
    let tenant = wire::tenant(changed.map_err(|error| match error {
        // The path was found; it is the body that names nothing.
        Error::NotFound { what: "plan", .. } => Failure::field("plan", error.public()),
        error => error.into(),
    })?);
    versioned(&tenant, tenant.version)
}

fn merged(now: model::Tenant, change: UpdateTenant) -> model::UpdateTenant {
    let settings = change.settings.map(|patch| {
        let (now, fresh) = (now.settings, model::Settings::default());
        model::Settings {
            brand_name: patch.brand_name.unwrap_or(now.brand_name),
            color: patch.color.unwrap_or(now.color),
            locale: patch.locale.map_or(now.locale, |text| text.unwrap_or(fresh.locale)),
            time_zone: patch.time_zone.map_or(now.time_zone, |text| text.unwrap_or(fresh.time_zone)),
        }
    });
    let features = (!change.features.is_empty()).then(|| {
        let mut features = now.features;
        for (name, change) in change.features {
            match change {
                OverrideChange::Set(value) => features.insert(name, value),
                OverrideChange::Reset => features.remove(&name),
            };
        }
        features
    });
    let limits = (!change.limits.is_empty()).then(|| {
        let mut limits = now.limits;
        for (name, value) in change.limits {
            match value {
                Some(value) => limits.insert(name, value),
                None => limits.remove(&name),
            };
        }
        limits
    });
    model::UpdateTenant { name: change.name, plan: change.plan, settings, features, limits }
}

/// Suspends a tenant: nothing is lost, nothing is served.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/suspend", tag = "tenants",
    params(("tenant" = String, Path, description = "Id or slug"), WaitQuery),
    responses((status = 200, description = "Done", body = Operation), (status = 202, description = "Begun", body = Operation), Refused),
    security(("key" = ["provisioner"]))
)]
pub(super) async fn suspend_tenant(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Answer {
    let operation = control.suspend_tenant(&caller.name, &tenant, None).await?;
    begun(&control, operation, query.wait).await
}

/// Resumes a suspended tenant; also takes a deletion back, as long as nothing is erased.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/resume", tag = "tenants",
    params(("tenant" = String, Path, description = "Id or slug"), WaitQuery),
    responses((status = 200, description = "Done", body = Operation), (status = 202, description = "Begun", body = Operation), Refused),
    security(("key" = ["provisioner"]))
)]
pub(super) async fn resume_tenant(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Answer {
    let operation = control.resume_tenant(&caller.name, &tenant, None).await?;
    begun(&control, operation, query.wait).await
}

/// Disables a tenant at once and for good; its data stays until it is erased.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "Id or slug"), WaitQuery),
    responses((status = 200, description = "Done", body = Operation), (status = 202, description = "Begun", body = Operation), Refused),
    security(("key" = ["admin"]))
)]
pub(super) async fn delete_tenant(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Answer {
    let operation = control.delete_tenant(&caller.name, &tenant, None).await?;
    begun(&control, operation, query.wait).await
}

/// A grant for one backend of the tenant's database: opens its data there for thirty seconds. Host side; audited.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/grants", tag = "tenants", params(("tenant" = String, Path, description = "Id or slug")),
    request_body = CreateGrant, responses((status = 201, body = GrantText), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn create_grant(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    Json(body): Json<CreateGrant>,
) -> Answer {
    let grant = control.grant(&caller.name, &tenant, body.pid).await?;
    let expires_at = chrono::DateTime::from_timestamp(grant.expires, 0).unwrap_or_default();
    let told = created(&format!("/v1/tenants/{tenant}"), &GrantText { grant: Some(grant.text()), expires_at });
    with_replay(told, &GrantText { grant: None, expires_at })
}

/// Waits for an operation's end; one that failed is a problem of its kind.
async fn ended(control: &Control, operation: model::Operation) -> Result<model::Operation, Failure> {
    let operation = control.wait_operation(operation.id, LONGEST_WAIT).await?;
    if operation.state != OperationState::Failed {
        return Ok(operation);
    }
    let error = operation.error.as_ref();
    let kind = error.and_then(|e| kind_of_name(&e.kind)).unwrap_or(Kind::Internal);
    let detail = error.map_or("no reason was recorded", |e| e.detail.as_str());
    Err(Failure::new(kind, format!("{} failed, and nothing of it is left: {detail}", operation.kind)))
}

/// The answer to a call that began an operation.
async fn begun(control: &Control, operation: model::Operation, wait: bool) -> Answer {
    let operation = if wait { ended(control, operation).await? } else { operation };
    let status = if operation.state == OperationState::Done { StatusCode::OK } else { StatusCode::ACCEPTED };
    at(status, &location(operation.id), &wire::operation(operation))
}

pub(super) async fn begun_or_done(
    control: &Control,
    operation: model::Operation,
    wait: bool,
) -> Result<model::Operation, Failure> {
    if wait { ended(control, operation).await } else { Ok(operation) }
}

pub(super) fn location(id: OperationId) -> String {
    format!("/v1/operations/{id}")
}

/// Which page was asked for.
pub(super) fn page_request(limit: Option<u32>, cursor: Option<String>) -> Result<PageRequest, Failure> {
    let limit = limit.unwrap_or(insula_api::page::DEFAULT_LIMIT);
    if limit == 0 || limit > insula_api::page::MAX_LIMIT {
        return Err(Failure::field("limit", format!("1 to {}", insula_api::page::MAX_LIMIT)));
    }
    Ok(PageRequest { after: cursor, limit })
}
