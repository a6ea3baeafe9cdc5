//! Events of an application: tenants of every isolation, its worker, a receiver of webhooks, a bus. With a real Postgres and a real NATS.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::routing::{get, post};
use insula::jobs::{Jobs, WorkerConfig};
use insula::{Config, Insula, Json, Kind, Result, Tenant, events, webhooks};
use insula_testkit::{Isolation, TestCell, TestNats, TestTenant};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::smuggle::MIGRATION;

async fn add(tenant: Tenant, Json(body): Json<Value>) -> Result<Json<Value>> {
    let mut tx = tenant.begin().await?;
    let url = body["url"].as_str().unwrap_or_default();
    let created = webhooks::create(&tenant, &mut tx, url, &["document.*"]).await?;
    tx.commit().await?;
    Ok(Json(json!(created)))
}

async fn list(tenant: Tenant) -> Result<Json<Value>> {
    let mut tx = tenant.begin().await?;
    Ok(Json(json!(webhooks::list(&mut tx).await?)))
}

async fn change(tenant: Tenant, body: String) -> Result<&'static str> {
    let mut tx = tenant.begin().await?;
    events::publish(&mut tx, "document.created", &json!({ "title": body, "by": tenant.context().slug })).await?;
    if body == "refused" {
        return Err(insula::Error::public(Kind::Conflict, "no"));
    }
    tx.commit().await?;
    Ok("changed")
}

async fn bad_topic(tenant: Tenant) -> Result<()> {
    let mut tx = tenant.begin().await?;
    events::publish(&mut tx, "Not A Topic", &1).await?;
    Ok(())
}

async fn ask(app: &Router, tenant: &TestTenant, request: http::request::Builder, body: String) -> (u16, Value) {
    let host = format!("{}.localhost", tenant.context.slug);
    let request = request.header("host", host).header("content-type", "application/json").body(Body::from(body)).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// What came to a receiver: the path and the body.
async fn receiver() -> (String, Arc<Mutex<Vec<(String, Value)>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let posts = got.clone();
    let app = Router::new().fallback(async move |request: Request| {
        let path = request.uri().path().to_owned();
        let signed = request.headers().contains_key("insula-signature") && request.headers().contains_key("insula-event");
        let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
        posts.lock().unwrap().push((path.clone(), serde_json::from_slice(&body).unwrap()));
        // The first time to this path it is out of order.
        let first = posts.lock().unwrap().iter().filter(|(seen, _)| *seen == path).count() == 1;
        if signed && !(first && path == "/failing") { http::StatusCode::OK } else { http::StatusCode::BAD_GATEWAY }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, got)
}

async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !met().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start(cell: &TestCell, nats: Option<&TestNats>) -> (Insula, Router) {
    let mut config = Config::for_many(cell.catalog_url(), cell.key_ring());
    config.telling.webhook_private = true;
    config.telling.bus = nats.map(|nats| insula::config::Bus { url: nats.url(), replicas: 1, ..Default::default() });
    let insula = Insula::connect(config).await.unwrap();
    let app = Router::new()
        .route("/webhooks", post(add).get(list))
        .route("/change", post(change))
        .route("/bad", get(bad_topic))
        .layer(insula.layer());
    (insula, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_of_tenants_of_every_isolation_are_told_by_the_worker() {
    let cell = TestCell::shared(MIGRATION).await;
    let mut tenants = Vec::new();
    for (slug, isolation) in
        [("hook-row", Isolation::Row), ("hook-schema", Isolation::Schema), ("hook-database", Isolation::Database)]
    {
        tenants.push(cell.tenant(slug, "bronze", isolation).await);
    }
    let (insula, app) = start(cell, None).await;
    let (url, got) = receiver().await;
    let worker = insula.worker(Jobs::new(), WorkerConfig { poll: Duration::from_millis(50), ..WorkerConfig::default() }).unwrap();
    for tenant in &tenants {
        let hook = json!({ "url": format!("{url}/{}", tenant.context.slug) }).to_string();
        let (status, created) = ask(&app, tenant, Request::post("/webhooks"), hook).await;
        assert_eq!((status, created["secret"].as_str().map(str::len)), (200, Some(64)), "{created}");
        let (status, fault) =
            ask(&app, tenant, Request::post("/webhooks"), r#"{"url":"http://169.254.169.254/"}"#.to_owned()).await;
        assert_eq!((status, fault["errors"][0]["field"].as_str()), (422, Some("url")), "{fault}");
        let (status, fault) = ask(&app, tenant, Request::get("/bad"), String::new()).await;
        assert_eq!((status, fault["detail"].as_str()), (422, None), "{fault}");
        assert_eq!(ask(&app, tenant, Request::post("/change"), "refused".to_owned()).await.0, 409);
        assert_eq!(ask(&app, tenant, Request::post("/change"), "new".to_owned()).await.0, 200);
    }
    let hook = json!({ "url": format!("{url}/failing") }).to_string();
    ask(&app, &tenants[0], Request::post("/webhooks"), hook).await;
    assert_eq!(ask(&app, &tenants[0], Request::post("/change"), "again".to_owned()).await.0, 200);
    // Each of its own, and nothing that was rolled back; the failing one a second time.
    until("all posts", async || got.lock().unwrap().len() >= 6).await;
    for tenant in &tenants {
        let slug = tenant.context.slug.as_str();
        let posts: Vec<Value> =
            got.lock().unwrap().iter().filter(|(path, _)| *path == format!("/{slug}")).map(|(_, body)| body.clone()).collect();
        for post in &posts {
            assert_eq!(
                (post["data"]["by"].as_str(), post["tenant"].as_str()),
                (Some(slug), Some(tenant.context.tenant.to_string().as_str()))
            );
        }
        // In no order that is promised.
        let new = posts.iter().filter(|post| post["data"]["title"] == "new").count();
        assert_eq!(new, 1, "{posts:?}");
        until("the status", async || {
            ask(&app, tenant, Request::get("/webhooks"), String::new()).await.1[0]["last_status"] == 200
        })
        .await;
        let (_, listed) = ask(&app, tenant, Request::get("/webhooks"), String::new()).await;
        assert!(!listed.to_string().contains("secret") && !listed.to_string().contains("sealed"), "{listed}");
    }
    let failing: Vec<Value> =
        got.lock().unwrap().iter().filter(|(path, _)| path == "/failing").map(|(_, body)| body.clone()).collect();
    assert_eq!((failing.len(), &failing[0]["id"]), (2, &failing[1]["id"]), "the same event in both tries");
    worker.stop().await;
}

#[cfg(feature = "nats")]
#[tokio::test(flavor = "multi_thread")]
async fn events_of_tenants_of_every_isolation_go_over_the_bus_and_are_handled_where_they_live() {
    use insula::events::ConsumerConfig;
    let cell = TestCell::shared(MIGRATION).await;
    let mut nats = TestNats::absent();
    let mut tenants = Vec::new();
    for (slug, isolation) in
        [("bus-row", Isolation::Row), ("bus-schema", Isolation::Schema), ("bus-database", Isolation::Database)]
    {
        tenants.push(cell.tenant(slug, "bronze", isolation).await);
    }
    let (insula, app) = start(cell, Some(&nats)).await;
    // As the role `worker` does; the bus comes later than everything else.
    let relay = insula.relay().await.unwrap();
    let consumer = insula.consume(ConsumerConfig::new("indexer", &["document.*"]), |event, tx| {
        Box::pin(async move {
            let body: Value = event.json()?;
            sqlx::query("INSERT INTO notes (id, body) VALUES ($1, $2)")
                .bind(event.envelope.id)
                .bind(format!("{} for {}", body["title"].as_str().unwrap_or_default(), body["by"].as_str().unwrap_or_default()))
                .execute(tx)
                .await?;
            Ok(())
        })
    });
    let consumer = consumer.await.unwrap();
    for tenant in &tenants {
        for title in ["one", "refused", "two"] {
            ask(&app, tenant, Request::post("/change"), title.to_owned()).await;
        }
    }
    nats.revive();
    for tenant in &tenants {
        let slug = &tenant.context.slug;
        let mut admin = cell.server().admin(&tenant.placement.database).await;
        let sql = format!(
            "SELECT coalesce(string_agg(body, ', ' ORDER BY body), '') FROM {}.notes WHERE tenant_id = {}",
            tenant.placement.schema, tenant.context.no
        );
        until("both to be handled", async || {
            let done: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone())).fetch_one(&mut admin).await.unwrap();
            done == format!("one for {slug}, two for {slug}")
        })
        .await;
    }
    consumer.stop().await;
    relay.stop().await;
}
