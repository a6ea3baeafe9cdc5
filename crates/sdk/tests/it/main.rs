//! The SDK from outside: what an application gets without a database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod context;
mod events;
mod smuggle;
#[cfg(feature = "tonic")]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::routing::{get, post};
use insula::feature::RequireLayer;
use insula::{Error, Feature, Insula, Json, Kind, Result, Tenant};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::{FeatureValue, KeyRing};
use insula_telemetry::Shutdown;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tower::ServiceExt;

const SEARCH: Feature<bool> = Feature::new("search", false);
const EXPORT: Feature<bool> = Feature::new("export", true);
const SEATS: Feature<i64> = Feature::new("seats", 0);

/// Tenant `acme`, whose database is nowhere.
async fn insula() -> Insula {
    let source = FakeSource::new();
    source.change(|content| {
        let mut plan = fake::plan("bronze").unwrap();
        plan.features.insert("export".to_owned(), FeatureValue::Switch(false));
        plan.features.insert("seats".to_owned(), FeatureValue::Number(3));
        content.put_plan(plan);
        content.put_cell(fake::cell("main", "127.0.0.1", 1).unwrap());
        content.put_database(fake::database("main", "insula_pool", 0).unwrap());
        content.put_tenant(fake::tenant("acme", 1, "bronze", "main").unwrap());
    });
    let catalog = Catalog::start(source, Options::default());
    catalog.ready().await;
    Insula::from_parts(catalog, KeyRing::default())
}

async fn ask(app: Router, path: &str) -> (u16, Value) {
    let request = Request::get(path).header("host", "acme.localhost").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
}

async fn query(tenant: Tenant) -> Result<()> {
    tenant.begin().await?.commit().await?;
    Ok(())
}

async fn plan(tenant: Tenant) -> Result<Json<Value>> {
    tenant.require(&SEARCH)?;
    assert!(!tenant.has(&EXPORT) && !tenant.has(&Feature::new("nothing-of-the-sort", false)));
    assert_eq!((tenant.feature(&SEATS), tenant.feature(&Feature::new("seats", ""))), (3, ""));
    Ok(Json(json!({"name": tenant.display_name(), "plan": tenant.plan().name})))
}

#[insula::requires(SEARCH, EXPORT)]
async fn export(_: Tenant) -> &'static str {
    "exported"
}

#[insula::requires(SEARCH, SEATS)]
async fn found(body: String) -> String {
    body
}

async fn spawned(tenant: Tenant) -> Result<String> {
    let kept = insula::spawn(async { insula::scope::current().map(|context| context.slug.to_string()) })?;
    assert_eq!(kept.await??, tenant.context().slug.as_str());
    Ok(insula::spawn_blocking(|| insula::scope::current().map(|context| context.slug.to_string()))?.await??)
}

#[tokio::test]
async fn a_handler_has_a_tenant_or_a_problem() {
    let meters = insula_telemetry::meters::install().unwrap();
    let insula = insula().await;
    let app = Router::new()
        .route("/query", get(query))
        .route("/plan", get(plan))
        .route("/export", get(export))
        .route("/found", get(found))
        .route("/layered", get(async || "in").route_layer(RequireLayer::of(&SEATS)))
        .route("/barred", get(async || "in").route_layer(RequireLayer::of(&EXPORT)))
        .route("/spawned", get(spawned))
        .route("/secret", get(async || Err::<(), _>(Error::internal("the password is hunter2"))))
        .route("/told", get(async || Err::<(), _>(Error::public(Kind::Conflict, "two of them"))))
        .layer(insula.layer());
    let app = insula::service(app, &insula);
    assert_eq!(ask(app.clone(), "/plan").await, (200, json!({"name": "acme", "plan": "bronze"})));
    assert_eq!(ask(app.clone(), "/spawned").await, (200, json!("acme")));
    assert_eq!(ask(app.clone(), "/healthz").await, (200, json!("ok")));
    assert_eq!(ask(app.clone(), "/readyz").await, (200, json!("ready")));
    assert_eq!(ask(app.clone(), "/found").await, (200, json!("")));
    assert_eq!(ask(app.clone(), "/layered").await, (200, json!("in")));
    for barred in ["/export", "/barred"] {
        let (status, body) = ask(app.clone(), barred).await;
        assert_eq!((status, &body["detail"]), (403, &json!("Your plan, bronze, does not have export.")), "{barred}");
    }
    let metrics = meters.render("test");
    assert!(metrics.contains("insula_feature_checks_total{feature=\"export\",outcome=\"denied\"} 3"), "{metrics}");
    let (status, body) = ask(app.clone(), "/told").await;
    assert_eq!((status, &body["detail"]), (409, &json!("two of them")));
    // The cell is away and there is no key for it: that is our trouble, and its story stays here.
    for (path, expected) in [("/query", 503), ("/secret", 500)] {
        let (status, body) = ask(app.clone(), path).await;
        assert_eq!((status, &body["detail"]), (expected, &Value::Null), "{body}");
        assert!(!body.to_string().contains("hunter2") && !body.to_string().contains("main"), "{body}");
    }
}

#[tokio::test]
async fn outside_the_layer_there_is_no_tenant() {
    let (status, _) = ask(Router::new().route("/query", get(query)), "/query").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn what_runs_is_finished_before_the_end() {
    let insula = insula().await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        async move |_: Tenant| {
            begun.notify_one();
            go_on.notified().await;
            "finished"
        }
    };
    let app = Router::new().route("/slow", post(slow)).layer(insula.layer());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new(Duration::from_secs(10));
    let serving = {
        let (insula, shutdown) = (insula.clone(), shutdown.clone());
        tokio::spawn(async move { insula::serve_on(listener, app, &insula, &shutdown).await })
    };
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"POST /slow HTTP/1.1\r\nHost: acme.localhost\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    begun.notified().await;
    shutdown.trigger();
    go_on.notify_one();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("finished"), "{answer}");
    serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// An application of `acme`, whose plan allows two requests at once and two in a hurry.
async fn frugal(rates: bool) -> (Router, Arc<Semaphore>, Arc<Semaphore>) {
    let behind = context::Behind::start_with(|plan| {
        (plan.limits.requests_per_second, plan.limits.request_burst, plan.limits.max_concurrent_requests) = (1, 2, 2);
        plan.limits.request_timeout_ms = 5_000;
    })
    .await;
    let insula = if rates { Insula::from_parts(behind.catalog.clone(), KeyRing::default()) } else { behind.insula.clone() };
    let (begun, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (here, further) = (begun.clone(), go_on.clone());
    let slow = async move |_: Tenant| {
        here.add_permits(1);
        further.acquire().await.unwrap().forget();
        "finished"
    };
    let app = Router::new().route("/fast", get(async || "fast")).route("/slow", get(slow)).layer(insula.layer());
    let token = behind.context("acme", None);
    let signed = axum::middleware::from_fn(move |mut request: Request, next: axum::middleware::Next| {
        let token = token.clone();
        async move {
            request.headers_mut().insert("insula-tenant-context", token);
            next.run(request).await
        }
    });
    (app.layer(signed), begun, go_on)
}

#[tokio::test]
async fn an_application_by_itself_holds_tenants_to_their_rates() {
    let (app, ..) = frugal(true).await;
    assert_eq!(ask(app.clone(), "/fast").await.0, 200);
    assert_eq!(ask(app.clone(), "/fast").await.0, 200);
    // One more passes for each second that it takes.
    let mut tries = 0;
    let refused = loop {
        let request = Request::get("/fast").header("host", "acme.localhost").body(Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        if answer.status() == 429 {
            break answer;
        }
        tries += 1;
        assert!(tries < 20, "nobody is refused");
    };
    assert!(refused.headers().contains_key("retry-after") && refused.headers().contains_key("ratelimit"), "{refused:?}");
}

#[tokio::test]
async fn behind_a_gateway_rates_are_charged_once_and_the_rest_holds_here_too() {
    let (app, begun, go_on) = frugal(false).await;
    for _ in 0..20 {
        assert_eq!(ask(app.clone(), "/fast").await.0, 200, "the gateway has counted these");
    }
    let slow = [tokio::spawn(ask(app.clone(), "/slow")), tokio::spawn(ask(app.clone(), "/slow"))];
    begun.acquire_many(2).await.unwrap().forget();
    let (status, body) = ask(app.clone(), "/fast").await;
    assert_eq!(status, 429, "two are at work: {body}");
    go_on.add_permits(2);
    for slow in slow {
        assert_eq!(slow.await.unwrap().0, 200);
    }
    // An answer that does not come in the plan's time is given up here, too.
    let (status, _) = ask(app, "/slow").await;
    assert_eq!(status, 504);
}
