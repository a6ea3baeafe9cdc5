//! `/v1/catalog`, `/v1/catalog/watch`, `/v1/tenants/{id}/config`: what data planes follow.

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use insula_api::catalog::{CatalogChanges, FeedQuery, TenantConfig};
use insula_catalog::wire::{self as feed, Frame};
use insula_core::Kind;
use uuid::Uuid;

use super::Refused;
use super::answer::{Answer, ok};
use super::failure::Failure;
use super::input::{Path, Query};
use crate::auth::Caller;
use crate::handle::Control;
use crate::watch::load;
use crate::watch::watcher::Watcher;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What changed after a revision; without one, the whole catalog as lines of JSON, of which the last is `{"loaded": …}`.
#[utoipa::path(
    get, path = "/v1/catalog", tag = "catalog",
    params(FeedQuery, ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 when there is nothing newer")),
    responses(
        (status = 200, body = CatalogChanges, headers(("ETag" = String, description = "The revision"), ("Insula-Catalog" = String, description = "Which catalog"))),
        (status = 304, description = "Nothing newer"),
        (status = 410, content_type = "application/problem+json", body = insula_api::Problem, description = "The feed does not reach back so far: ask without `since`"),
        Refused,
    ),
    security(("key" = ["edge"]))
)]
pub(super) async fn show_catalog(State(control): State<Control>, headers: HeaderMap, Query(query): Query<FeedQuery>) -> Answer {
    let hub = control.hub();
    let catalog = hub.catalog().await?;
    let Some(since) = since(&query, catalog)? else {
        let body = Body::from_stream(load::lines(hub.clone()));
        return Ok(of(catalog, streamed("application/x-ndjson", body)));
    };
    let changes = hub.changes(since).await?.ok_or_else(gone)?;
    let etag = format!("\"{}\"", changes.revision);
    let response = if matches(&headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ok(&Frame { since, revision: changes.revision, changes: changes.changes })?
    };
    Ok(of(catalog, tagged(response, &etag)))
}

/// What changes from a revision on, as server-sent events: `changes`, and `current` several times a second as a sign of life. When
/// the feed does not reach back so far, or no revision is given, `page`s come first, until `loaded`. The id of an event is the
/// revision to resume from.
#[utoipa::path(
    get, path = "/v1/catalog/watch", tag = "catalog",
    params(FeedQuery, ("Last-Event-ID" = Option<i64>, Header, description = "Goes before `since`")),
    responses((status = 200, content_type = "text/event-stream", description = "Without end", headers(("Insula-Catalog" = String, description = "Which catalog"))), Refused),
    security(("key" = ["edge"]))
)]
pub(super) async fn watch_catalog(
    State(control): State<Control>,
    caller: Caller,
    headers: HeaderMap,
    Query(mut query): Query<FeedQuery>,
) -> Answer {
    if let Some(last) = headers.get(LAST_EVENT_ID) {
        let last = last.to_str().ok().and_then(|text| text.parse().ok());
        query.since = Some(last.ok_or_else(|| Failure::field("Last-Event-ID", "the id of an event of this stream"))?);
    }
    let catalog = control.hub().catalog().await?;
    // A stream begins with a full load where asking would have to say that one is due.
    let since = since(&query, catalog).unwrap_or(None);
    let watcher = Watcher::new(control, caller.key, since)
        .ok_or_else(|| Failure::new(Kind::Unavailable, "too many watch already: poll /v1/catalog, and come back"))?;
    Ok(of(catalog, streamed("text/event-stream", Body::from_stream(watcher.events()))))
}

/// What holds for a tenant: effective limits, features, settings, where it lives, the documents rolled out to it.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/config", tag = "catalog",
    params(
        ("tenant" = String, Path, description = "Id or slug"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 when nothing of it has changed"),
    ),
    responses(
        (status = 200, body = TenantConfig, headers(("ETag" = String, description = "Changes whenever anything in it does"))),
        (status = 304, description = "As it was"),
        Refused,
    ),
    security(("key" = ["edge"]))
)]
pub(super) async fn show_tenant_config(State(control): State<Control>, headers: HeaderMap, Path(tenant): Path<String>) -> Answer {
    let config = super::wire::tenant_config(control.tenant_config(&tenant).await?);
    let text = serde_json::to_vec(&config).unwrap_or_default();
    let hash = digest(&SHA256, &text);
    let etag = format!("\"{}\"", super::wire::hex(hash.as_ref().get(..16).unwrap_or_default()));
    let response = if matches(&headers, &etag) { StatusCode::NOT_MODIFIED.into_response() } else { ok(&config)? };
    Ok(tagged(response, &etag))
}

/// Where the reader stands; `None` for one that has nothing. A revision of another catalog is none of this one.
fn since(query: &FeedQuery, catalog: Uuid) -> Result<Option<i64>, Failure> {
    match query.since {
        Some(since) if since < 0 => Err(Failure::field("since", "a revision: 0 or more")),
        Some(_) if query.catalog.is_some_and(|theirs| theirs != catalog) => Err(gone()),
        since => Ok(since),
    }
}

fn gone() -> Failure {
    let detail = "the feed does not reach back so far, or is of another catalog: ask without `since`";
    Failure::new(Kind::Conflict, detail).with_status(StatusCode::GONE)
}

/// Whether `If-None-Match` names a tag (RFC 9110, 13.1.2).
fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let given = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

fn tagged(mut response: Response, etag: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, value);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

fn streamed(kind: &'static str, body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy in between is not to gather events before it hands them on (as nginx understands it).
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn of(catalog: Uuid, mut response: Response) -> Response {
    if let Ok(value) = HeaderValue::from_str(&catalog.to_string()) {
        response.headers_mut().insert(feed::IDENTITY, value);
    }
    response
}
