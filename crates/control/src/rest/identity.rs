//! `/v1/providers`, `/v1/tenants/{tenant}/keys`, `/v1/context-keys` and `/.well-known/jwks.json`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse as _;
use insula_api::Page;
use insula_api::identity::{
    ContextKey, CreateProvider, CreateTenantKey, Provider, ProviderQuery, RotateContextKey, TenantKey, TenantKeyCreated,
};
use insula_api::page::PageQuery;
use insula_core::token::KeySet;
use insula_core::{CellName, KeyId, ProviderId};
use uuid::Uuid;

use super::answer::{Answer, created, ok, with_replay};
use super::input::{Json, Path, Query};
use super::tenants::page_request;
use super::{Refused, wire};
use crate::auth::Caller;
use crate::error::Error;
use crate::handle::Control;

/// Identity providers, oldest first.
#[utoipa::path(
    get, path = "/v1/providers", tag = "identity", params(ProviderQuery),
    responses((status = 200, body = Page<Provider>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_providers(State(control): State<Control>, Query(query): Query<ProviderQuery>) -> Answer {
    let found = control.providers(query.tenant.as_deref(), &page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, |provider| provider))
}

/// Believes an issuer's tokens from now on.
#[utoipa::path(
    post, path = "/v1/providers", tag = "identity", request_body = CreateProvider,
    responses((status = 201, body = Provider), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn create_provider(State(control): State<Control>, caller: Caller, Json(body): Json<CreateProvider>) -> Answer {
    let made = control.create_provider(&caller.name, &body).await?;
    created(&format!("/v1/providers/{}", made.id), &made)
}

/// Believes an issuer's tokens no more, at once.
#[utoipa::path(
    delete, path = "/v1/providers/{provider}", tag = "identity", params(("provider" = String, Path, description = "Its id")),
    responses((status = 204, description = "Taken away"), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn delete_provider(State(control): State<Control>, caller: Caller, Path(id): Path<Uuid>) -> Answer {
    control.delete_provider(&caller.name, ProviderId::from(id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Keys of a tenant's own programs, oldest first, revoked ones included.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/keys", tag = "identity",
    params(("tenant" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = Page<TenantKey>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_tenant_keys(
    State(control): State<Control>,
    Path(tenant): Path<String>,
    Query(query): Query<PageQuery>,
) -> Answer {
    let found = control.tenant_keys(&tenant, &page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, |key| key))
}

/// Makes a key for a tenant's own programs. The answer has its text, this once.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/keys", tag = "identity", params(("tenant" = String, Path, description = "Id or slug")),
    request_body = CreateTenantKey, responses((status = 201, body = TenantKeyCreated), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn create_tenant_key(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    Json(body): Json<CreateTenantKey>,
) -> Answer {
    let (key, secret) = control.create_tenant_key(&caller.name, &tenant, &body).await?;
    let told = TenantKeyCreated { key: key.clone(), secret: Some(secret), secret_withheld: false };
    let answer = created(&format!("/v1/tenants/{tenant}/keys/{}", key.id), &told);
    with_replay(answer, &TenantKeyCreated { key, secret: None, secret_withheld: true })
}

/// Revokes a key of a tenant's: every gateway that is connected refuses it within a second.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/keys/{key}", tag = "identity",
    params(("tenant" = String, Path, description = "Id or slug"), ("key" = String, Path, description = "Its id")),
    responses((status = 200, body = TenantKey), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn revoke_tenant_key(
    State(control): State<Control>,
    caller: Caller,
    Path((tenant, id)): Path<(String, Uuid)>,
) -> Answer {
    ok(&control.revoke_tenant_key(&caller.name, &tenant, KeyId::from(id)).await?)
}

/// Keys that gateways sign tenant contexts with, newest first, until none of their tokens can be about.
#[utoipa::path(
    get, path = "/v1/context-keys", tag = "identity",
    responses((status = 200, body = Page<ContextKey>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_context_keys(State(control): State<Control>) -> Answer {
    ok(&Page::<ContextKey> { items: control.context_keys().await?, next: None })
}

/// Publishes the next key; gateways that have it sign with it once it was published long enough.
#[utoipa::path(
    post, path = "/v1/context-keys", tag = "identity", request_body = RotateContextKey,
    responses((status = 201, body = ContextKey), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn rotate_context_key(
    State(control): State<Control>,
    caller: Caller,
    Json(body): Json<RotateContextKey>,
) -> Answer {
    created("/v1/context-keys", &control.rotate_context_key(&caller.name, body.overlap_seconds).await?)
}

/// The public keys of the tenant contexts that gateways sign (RFC 7517): what an application in any language verifies with.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "identity",
    responses((status = 200, description = "A JWKS", content_type = "application/jwk-set+json", body = String), Refused), security(())
)]
pub(super) async fn jwks(State(control): State<Control>) -> Answer {
    Ok(published(&control.context_jwks().await?))
}

/// The public key of the tenant contexts that a cell's applications sign when they call others: good for that cell's tenants.
#[utoipa::path(
    get, path = "/.well-known/jwks/{cell}", tag = "identity", params(("cell" = String, Path, description = "Its name")),
    responses((status = 200, description = "A JWKS", content_type = "application/jwk-set+json", body = String), Refused), security(())
)]
pub(super) async fn cell_jwks(State(control): State<Control>, Path(cell): Path<String>) -> Answer {
    let cell: CellName = cell.parse().map_err(|_| Error::not_found("cell", cell))?;
    Ok(published(&control.cell_jwks(&cell).await?))
}

/// A minute: far less than a new key is published before it signs.
fn published(keys: &KeySet) -> axum::response::Response {
    let headers = [(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "public, max-age=60")];
    (headers, keys.to_jwks()).into_response()
}
