//! Every request is noticed once, with whose it was and what it cost.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::routing::{get, post};
use axum::{Router, response::Response};
use futures_util::{StreamExt as _, stream};
use insula_core::TenantNo;
use insula_http::ResolveLayer;
use insula_telemetry::{Meter, Senses, Usage};
use tower::ServiceExt as _;

use crate::catalog;

fn request(host: &str, path: &str, body: &'static str) -> Request {
    let method = if body.is_empty() { "GET" } else { "POST" };
    Request::builder().method(method).uri(path).header("host", host).body(Body::from(body)).unwrap()
}

async fn app(senses: &Senses) -> Router {
    let work = || {
        let begun = insula_telemetry::cpu::thread();
        let mut sum = 0u64;
        while (insula_telemetry::cpu::thread() - begun).as_millis() < 50 {
            sum = (0..1000).fold(sum, u64::wrapping_add);
        }
        sum.to_string()
    };
    Router::new()
        .route("/", get(async || "ten bytes."))
        .route("/eat", post(async |body: Bytes| body.len().to_string()))
        .route("/work", get(async move || work()))
        .route(
            "/endless",
            get(async || Response::new(Body::from_stream(stream::repeat(Ok::<_, std::convert::Infallible>("piece"))))),
        )
        .route("/broken", get(async || http::StatusCode::INTERNAL_SERVER_ERROR))
        .layer(ResolveLayer::new(catalog().await).watched_by(senses.clone()))
}

/// Tenant 1 is `acme`.
fn used(usage: &Usage) -> [u64; 8] {
    usage.drain().iter().find(|(no, _)| *no == TenantNo::new(1).unwrap()).map(|(_, amounts)| amounts.0).unwrap_or_default()
}

async fn whole(app: &Router, request: Request) {
    let response = app.clone().oneshot(request).await.unwrap();
    to_bytes(response.into_body(), usize::MAX).await.unwrap();
}

#[tokio::test]
async fn a_request_is_counted_for_its_tenant_when_its_answer_is_over() {
    let senses = Senses::default();
    let (app, usage) = (app(&senses).await, senses.usage().clone());
    let response = app.clone().oneshot(request("acme.localhost", "/", "")).await.unwrap();
    assert_eq!(used(&usage), [0; 8], "its answer is not over");
    to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let [requests, bytes_in, bytes_out, cpu, _, _, errors, throttled] = used(&usage);
    assert_eq!((requests, bytes_in, bytes_out, errors, throttled), (1, 0, 10, 0, 0));
    assert!(cpu < 50_000, "{cpu} µs for nothing");

    whole(&app, request("acme.localhost", "/eat", "twelve bytes")).await;
    assert_eq!(used(&usage)[..3], [1, 12, 2]);
    whole(&app, request("acme.localhost", "/work", "")).await;
    assert!(used(&usage)[Meter::Cpu as usize] >= 50_000);
    whole(&app, request("acme.localhost", "/broken", "")).await;
    assert_eq!(used(&usage)[Meter::Errors as usize], 1);
    whole(&app, request("nobody.localhost", "/", "")).await;
    assert!(usage.drain().is_empty(), "nobody pays for nobody's requests");
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_with_what_it_took() {
    let senses = Senses::default();
    let (app, usage) = (app(&senses).await, senses.usage().clone());
    let response = app.clone().oneshot(request("acme.localhost", "/endless", "")).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    for _ in 0..3 {
        body.next().await.unwrap().unwrap();
    }
    drop(body);
    assert_eq!(used(&usage)[..3], [1, 0, 15]);
}
