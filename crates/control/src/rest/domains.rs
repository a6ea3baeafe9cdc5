//! `/v1/tenants/{tenant}/domains`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use insula_api::Page;
use insula_api::domain::{AddDomain, Domain};
use insula_api::page::PageQuery;
use insula_core::Kind;

use super::answer::{Answer, created, ok};
use super::failure::Failure;
use super::input::{Json, Path, Query};
use super::tenants::page_request;
use super::{Refused, wire};
use crate::auth::Caller;
use crate::error::Error;
use crate::handle::Control;

/// Host names of a tenant besides `SLUG.<base domain>`, by name.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/domains", tag = "domains",
    params(("tenant" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = Page<Domain>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_domains(
    State(control): State<Control>,
    Path(tenant): Path<String>,
    Query(query): Query<PageQuery>,
) -> Answer {
    let found = control.domains(&tenant, &page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, wire::domain))
}

/// Claims a host name for a tenant. It leads nowhere until it is proven by the TXT record that the answer names.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/domains", tag = "domains", params(("tenant" = String, Path, description = "Id or slug")),
    request_body = AddDomain, responses((status = 201, body = Domain), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn add_domain(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    Json(body): Json<AddDomain>,
) -> Answer {
    let domain = wire::domain(control.add_domain(&caller.name, &tenant, &body.host).await?);
    created(&format!("/v1/tenants/{tenant}/domains/{}", domain.host), &domain)
}

/// Looks for the record that proves a host name; from then on it leads to the tenant.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/domains/{host}/verify", tag = "domains",
    params(("tenant" = String, Path, description = "Id or slug"), ("host" = String, Path, description = "The host name")),
    responses((status = 200, body = Domain), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn verify_domain(
    State(control): State<Control>,
    caller: Caller,
    Path((tenant, host)): Path<(String, String)>,
) -> Answer {
    let proven = control.verify_domain(&caller.name, &tenant, &host).await.map_err(none_of_its)?;
    ok(&wire::domain(proven))
}

/// Takes a host name away.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/domains/{host}", tag = "domains",
    params(("tenant" = String, Path, description = "Id or slug"), ("host" = String, Path, description = "The host name")),
    responses((status = 204, description = "Taken away"), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn remove_domain(
    State(control): State<Control>,
    caller: Caller,
    Path((tenant, host)): Path<(String, String)>,
) -> Answer {
    control.remove_domain(&caller.name, &tenant, &host).await.map_err(none_of_its)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What cannot be a host name is the name of none.
fn none_of_its(error: Error) -> Failure {
    match error {
        Error::Invalid { .. } => Failure::new(Kind::NotFound, "the tenant does not have this host name"),
        error => error.into(),
    }
}
