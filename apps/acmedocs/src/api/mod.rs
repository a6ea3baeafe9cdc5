//! The JSON API, under `/api`. Only here: what a request looks like on the wire; what it means is beside this folder.

mod digests;
mod documents;
mod exports;
mod overview;
mod session;
mod users;
mod versions;
mod webhooks;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_MATCH};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use insula::{Error, Json, Kind, Result};
use uuid::Uuid;

use crate::App;
use crate::documents::Document;

/// Every route of the API, with its methods: the tests hold that each has a denial case.
pub const ROUTES: &[(&str, &[&str])] = &[
    ("/api/session", &["GET", "POST", "DELETE"]),
    ("/api/documents", &["GET", "POST"]),
    ("/api/documents/{id}", &["GET", "PATCH", "DELETE"]),
    ("/api/documents/{id}/versions", &["GET"]),
    ("/api/documents/{id}/versions/{version}", &["GET"]),
    ("/api/documents/{id}/versions/{version}/restore", &["POST"]),
    ("/api/tags", &["GET"]),
    ("/api/search", &["GET"]),
    ("/api/dashboard", &["GET"]),
    ("/api/digests", &["GET"]),
    ("/api/digests/{day}", &["GET"]),
    ("/api/exports", &["GET", "POST"]),
    ("/api/exports/{id}", &["GET", "DELETE"]),
    ("/api/users", &["GET", "POST"]),
    ("/api/users/{id}", &["PATCH", "DELETE"]),
    ("/api/webhooks", &["GET", "POST"]),
    ("/api/webhooks/{id}", &["PATCH", "DELETE"]),
    ("/api/webhooks/{id}/secret", &["POST"]),
    ("/api/webhooks/{id}/test", &["POST"]),
];

/// The API's routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/api/session", get(session::who).post(session::log_in).delete(session::log_out))
        .route("/api/documents", get(documents::list).post(documents::create))
        .route("/api/documents/{id}", get(documents::read).patch(documents::update).delete(documents::delete))
        .route("/api/documents/{id}/versions", get(versions::list))
        .route("/api/documents/{id}/versions/{version}", get(versions::read))
        .route("/api/documents/{id}/versions/{version}/restore", post(versions::restore))
        .route("/api/tags", get(overview::tags))
        .route("/api/search", get(overview::search))
        .route("/api/dashboard", get(overview::dashboard))
        .route("/api/digests", get(digests::list))
        .route("/api/digests/{day}", get(digests::read))
        .route("/api/exports", get(exports::list).post(exports::request))
        .route("/api/exports/{id}", get(exports::read).delete(exports::remove))
        .route("/api/users", get(users::list).post(users::add))
        .route("/api/users/{id}", patch(users::change).delete(users::remove))
        .route("/api/webhooks", get(webhooks::list).post(webhooks::add))
        .route("/api/webhooks/{id}", patch(webhooks::change).delete(webhooks::remove))
        .route("/api/webhooks/{id}/secret", post(webhooks::rotate))
        .route("/api/webhooks/{id}/test", post(webhooks::test))
}

/// What is no id is the id of nothing.
fn id(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| Error::not_found())
}

/// The version that `If-Match` asks for (RFC 9110, section 13.1.1); `*` asks for any.
fn expected_version(headers: &HeaderMap) -> Result<Option<i32>> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
    // A tag that we never gave out matches nothing.
    version.map(Some).ok_or_else(|| Error::public(Kind::Precondition, "If-Match takes the ETag of a document, like \"3\"."))
}

/// A document with its version as ETag.
fn whole(document: Document) -> Response {
    ([(ETAG, format!("\"{}\"", document.version))], Json(document)).into_response()
}

/// A page's size: what was asked for, or `usual`, within `1..=most`.
fn page_size(asked: Option<i64>, usual: i64, most: i64) -> Result<i64> {
    match asked.unwrap_or(usual) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(Error::field("limit", format!("is 1 to {most}"))),
    }
}
