//! The same application as pages, rendered on the server: no script at all.
//!
//! Always: every page carries a content security policy; every form that changes something carries its session's secret.

mod assets;
mod chart;
mod digests;
mod documents;
mod edit;
mod exports;
mod fault;
mod guard;
mod session;
mod shell;
mod users;
mod webhooks;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};

use crate::App;

/// Every route of the pages, with its methods: the tests hold that each has a denial case.
pub const ROUTES: &[(&str, &[&str])] = &[
    ("/", &["GET"]),
    ("/login", &["GET", "POST"]),
    ("/logout", &["POST"]),
    ("/documents", &["GET", "POST"]),
    ("/documents/new", &["GET"]),
    ("/documents/{id}", &["GET", "POST"]),
    ("/documents/{id}/edit", &["GET"]),
    ("/documents/{id}/delete", &["POST"]),
    ("/documents/{id}/versions", &["GET"]),
    ("/documents/{id}/versions/{version}/restore", &["POST"]),
    ("/dashboard", &["GET"]),
    ("/digests", &["GET"]),
    ("/exports", &["GET", "POST"]),
    ("/exports/{id}/remove", &["POST"]),
    ("/exports/{id}/file", &["GET"]),
    ("/users", &["GET", "POST"]),
    ("/users/{id}/remove", &["POST"]),
    ("/webhooks", &["GET", "POST"]),
    ("/webhooks/{id}/pause", &["POST"]),
    ("/webhooks/{id}/remove", &["POST"]),
    ("/webhooks/{id}/resume", &["POST"]),
    ("/webhooks/{id}/secret", &["POST"]),
    ("/webhooks/{id}/test", &["POST"]),
    ("/assets/style.css", &["GET"]),
    ("/assets/brand.css", &["GET"]),
    ("/assets/icon.svg", &["GET"]),
];

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);

/// The pages' routes.
pub fn routes() -> Router<App> {
    let pages = Router::new()
        .route("/", get(session::home))
        .route("/login", get(session::form).post(session::log_in))
        .route("/logout", post(session::log_out))
        .route("/documents", get(documents::list).post(edit::create))
        .route("/documents/new", get(edit::new))
        .route("/documents/{id}", get(documents::read).post(edit::update))
        .route("/documents/{id}/edit", get(edit::form))
        .route("/documents/{id}/delete", post(edit::delete))
        .route("/documents/{id}/versions", get(documents::versions))
        .route("/documents/{id}/versions/{version}/restore", post(edit::restore))
        .route("/dashboard", get(documents::dashboard))
        .route("/digests", get(digests::list))
        .route("/exports", get(exports::list).post(exports::request))
        .route("/exports/{id}/remove", post(exports::remove))
        .route("/exports/{id}/file", get(exports::file))
        .route("/users", get(users::list).post(users::add))
        .route("/users/{id}/remove", post(users::remove))
        .route("/webhooks", get(webhooks::list).post(webhooks::add))
        .route("/webhooks/{id}/pause", post(webhooks::pause))
        .route("/webhooks/{id}/remove", post(webhooks::remove))
        .route("/webhooks/{id}/resume", post(webhooks::resume))
        .route("/webhooks/{id}/secret", post(webhooks::rotate))
        .route("/webhooks/{id}/test", post(webhooks::test))
        .layer(from_fn(private));
    pages.merge(assets::routes()).layer(from_fn(protected))
}

async fn protected(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// No shared cache and no back button shows a page to the next person at the machine.
async fn private(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}
