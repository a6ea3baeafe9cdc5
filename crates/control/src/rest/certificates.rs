//! `/v1/certificates`, and `/v1/catalog/certificates` for gateways.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use insula_api::Page;
use insula_api::certificate::{Certificate, PutCertificate, SealedCertificate, SealedCertificates};

use super::Refused;
use super::answer::{Answer, ok};
use super::input::{Json, Path};
use crate::auth::Caller;
use crate::handle::Control;

/// Certificates of host names, without their keys.
#[utoipa::path(
    get, path = "/v1/certificates", tag = "certificates",
    responses((status = 200, body = Page<Certificate>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_certificates(State(control): State<Control>) -> Answer {
    ok(&Page::<Certificate> { items: control.certificates().await?, next: None })
}

/// Puts a certificate with its key, in the place of the one before. Gateways show it within seconds.
#[utoipa::path(
    put, path = "/v1/certificates/{name}", tag = "certificates",
    params(("name" = String, Path, description = "A host name, or `*.` and a host name")),
    request_body = PutCertificate, responses((status = 200, body = Certificate), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn put_certificate(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<String>,
    Json(body): Json<PutCertificate>,
) -> Answer {
    ok(&control.put_certificate(&caller.name, &name, &body).await?)
}

/// Takes a certificate away.
#[utoipa::path(
    delete, path = "/v1/certificates/{name}", tag = "certificates", params(("name" = String, Path, description = "Its host name")),
    responses((status = 204, description = "Taken away"), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn delete_certificate(State(control): State<Control>, caller: Caller, Path(name): Path<String>) -> Answer {
    control.delete_certificate(&caller.name, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// All certificates with their keys, sealed: only a gateway that was given the certificates' key opens them.
#[utoipa::path(
    get, path = "/v1/catalog/certificates", tag = "catalog",
    params(("If-None-Match" = Option<String>, Header, description = "An ETag: 304 when none has changed")),
    responses(
        (status = 200, body = SealedCertificates, headers(("ETag" = String, description = "Changes whenever one is put or taken away"))),
        (status = 304, description = "As they were"),
        Refused,
    ),
    security(("key" = ["edge"]))
)]
pub(super) async fn show_certificates(State(control): State<Control>, headers: HeaderMap) -> Answer {
    let etag = format!("\"{}\"", control.certificates_state().await?);
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == etag.as_bytes());
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let seal = |one: crate::store::certificates::Sealed| SealedCertificate {
            name: one.name,
            chain: one.chain,
            sealed_key: STANDARD.encode(one.sealed_key),
        };
        ok(&SealedCertificates { items: control.sealed_certificates().await?.into_iter().map(seal).collect() })?
    };
    if let Ok(value) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, value);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}
