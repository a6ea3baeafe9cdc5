//! The layer from outside: which request reaches a handler, for whom, and how the others are answered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admit;
mod context;
mod fuzz;
mod identity;
mod languages;
mod lease;
mod observe;
mod provider;
mod redis;
mod resolve;
mod unknown;

use std::convert::Infallible;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::StatusCode;
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::{TenantContext, TenantState, scope};
use insula_http::ResolveLayer;
use serde_json::Value;
use tower::ServiceExt;

async fn catalog() -> Catalog {
    let source = FakeSource::new();
    source.change(|content| {
        content.put_plan(fake::plan("bronze").unwrap());
        content.put_cell(fake::cell("main", "127.0.0.1", 1).unwrap());
        content.put_database(fake::database("main", "insula_pool", 0).unwrap());
        let states = [("acme", TenantState::Active), ("asleep", TenantState::Suspended), ("gone", TenantState::Deleted)];
        for ((slug, state), no) in states.into_iter().chain([("unborn", TenantState::Provisioning)]).zip(1..) {
            let mut tenant = fake::tenant(slug, no, "bronze", "main").unwrap();
            tenant.state = state;
            content.put_tenant(tenant);
        }
    });
    let catalog = Catalog::start(source, Options::default());
    catalog.ready().await;
    catalog
}

async fn whose(Extension(context): Extension<TenantContext>) -> String {
    let scoped = scope::current().expect("a tenant in scope");
    assert_eq!(scoped, context);
    tokio::task::yield_now().await;
    scope::spawn(async { scope::current().expect("a tenant in scope").slug.to_string() }).unwrap().await.unwrap()
}

async fn app() -> Router {
    Router::new()
        .route("/", get(whose))
        .route("/boom", get(async || -> String { panic!("secret of the house") }))
        .route("/leak", get(async || (StatusCode::INTERNAL_SERVER_ERROR, "postgres://user:hunter2@host")))
        .route("/eat", post(async |body: Bytes| body.len().to_string()))
        .route("/healthz", get(async || scope::current().is_err().to_string()))
        .layer(DefaultBodyLimit::disable())
        .layer(ResolveLayer::new(catalog().await))
}

async fn send(app: &Router, request: Request) -> (StatusCode, http::HeaderMap, String) {
    let response: Result<Response, Infallible> = app.clone().oneshot(request).await;
    let (parts, body) = response.unwrap().into_parts();
    let text = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
    (parts.status, parts.headers, text)
}

fn get_from(host: &str, path: &str) -> Request {
    Request::get(path).header("host", host).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_known_host_reaches_its_handler_in_its_scope() {
    let app = app().await;
    for host in ["acme.localhost", "ACME.LOCALHOST:8080", "acme.localhost."] {
        let (status, headers, body) = send(&app, get_from(host, "/")).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "acme"), "{host}");
        assert!(headers.contains_key("x-request-id"));
    }
    let authority = Request::get("http://acme.localhost/").body(Body::empty()).unwrap();
    assert_eq!(send(&app, authority).await.2, "acme");
    assert!(scope::current().is_err());
}

#[tokio::test]
async fn every_other_host_is_a_problem() {
    let app = app().await;
    let cases = [
        ("nobody.localhost", 404, "unknown-tenant"),
        ("localhost", 404, "unknown-tenant"),
        ("a.acme.localhost", 404, "unknown-tenant"),
        ("gone.localhost", 404, "unknown-tenant"),
        ("unborn.localhost", 404, "unknown-tenant"),
        ("[::1]:80", 404, "unknown-tenant"),
        ("asleep.localhost", 403, "tenant-suspended"),
        ("acme.localhost@evil", 400, "invalid"),
        ("", 400, "invalid"),
    ];
    for (host, status, kind) in cases {
        let (got, headers, body) = send(&app, get_from(host, "/")).await;
        assert_eq!(
            (got.as_u16(), headers["content-type"].to_str().unwrap()),
            (status, "application/problem+json"),
            "{host}: {body}"
        );
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert!(problem["type"].as_str().unwrap().ends_with(&format!("/{kind}")), "{host}: {body}");
        assert_eq!(problem["request_id"].as_str(), headers["x-request-id"].to_str().ok());
    }
    let twice = Request::get("/").header("host", "acme.localhost").header("host", "acme.localhost").body(Body::empty());
    assert_eq!(send(&app, twice.unwrap()).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(send(&app, Request::get("/").body(Body::empty()).unwrap()).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn nothing_internal_gets_out() {
    let app = app().await;
    for path in ["/boom", "/leak"] {
        let (status, headers, body) = send(&app, get_from("acme.localhost", path)).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (StatusCode::INTERNAL_SERVER_ERROR, &"application/problem+json".parse().unwrap())
        );
        assert!(!body.contains("secret") && !body.contains("hunter2"), "{body}");
    }
    for (path, status) in [("/nowhere", 404), ("/eat", 405)] {
        let (got, headers, body) = send(&app, get_from("acme.localhost", path)).await;
        assert_eq!((got.as_u16(), &headers["content-type"]), (status, &"application/problem+json".parse().unwrap()), "{body}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], status);
    }
}

#[tokio::test]
async fn a_body_above_the_plan_is_refused_declared_or_not() {
    let app = app().await;
    let limit = usize::try_from(insula_core::Limits::default().max_body_bytes).unwrap();
    let eat = |declared: bool, size: usize| {
        let chunks = (0..size / 1024).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1024])));
        let body = if declared { Body::from(vec![b'x'; size]) } else { Body::from_stream(futures_util::stream::iter(chunks)) };
        let request = Request::post("/eat").header("host", "acme.localhost");
        let request = if declared { request.header("content-length", size) } else { request };
        request.body(body).unwrap()
    };
    assert_eq!(send(&app, eat(true, limit)).await.2, limit.to_string());
    assert_eq!(send(&app, eat(false, limit)).await.2, limit.to_string());
    for declared in [true, false] {
        let (status, headers, body) = send(&app, eat(declared, 50 << 20)).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (StatusCode::PAYLOAD_TOO_LARGE, &"application/problem+json".parse().unwrap()),
            "{body}"
        );
    }
}

#[tokio::test]
async fn health_passes_without_a_tenant_and_without_a_scope() {
    let app = app().await;
    for host in ["acme.localhost", "nobody.localhost", "10.0.0.1"] {
        assert_eq!(send(&app, get_from(host, "/healthz")).await.2, "true");
    }
}
