//! What operators see of the gateway while it serves: who is refused, who uses how much, whose trace it is, and who it was in the log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use insula_e2e::client::User;
use insula_e2e::up::{Tenant, Up, bin};
use insula_telemetry::budget::FORBIDDEN_LABELS;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use reqwest::header::{AUTHORIZATION, HOST};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Spans as they came, each with the name of the process that sent it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    /// Listens (OTLP/HTTP, protobuf); returns its address.
    async fn open() -> Result<(Self, String)> {
        let collector = Self::default();
        let store = collector.clone();
        let take = post(move |body: Bytes| async move { store.take(&body) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", take)).await });
        Ok((collector, url))
    }

    fn take(&self, body: &[u8]) {
        for part in ExportTraceServiceRequest::decode(body).expect("OTLP").resource_spans {
            let service = text(&part.resource.expect("a resource").attributes, "service.name").unwrap_or_default();
            let spans = part.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().expect("whole").extend(spans.map(|span| (service.clone(), span)));
        }
    }

    /// Waits for a span of this service, with this name, in our trace.
    async fn span(&self, service: &str, name: &str) -> Result<Span> {
        until(&format!("a span {name} of {service}"), async || {
            let spans = self.0.lock().expect("whole");
            let found = spans.iter().find(|(by, span)| by == service && span.name == name && hex(&span.trace_id) == TRACE);
            Ok(found.map(|(_, span)| span.clone()))
        })
        .await
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value? {
        Any::StringValue(text) => Some(text),
        Any::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Looks until there is an answer, a minute at most.
async fn until<T>(what: &str, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(tokio::time::Instant::now() < deadline, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A tenant's own program, with its API key.
struct Program {
    http: Client,
    page: String,
    host: String,
    bearer: String,
}

impl Program {
    async fn status(&self) -> Result<StatusCode> {
        Ok(self.http.get(&self.page).header(HOST, &self.host).header(AUTHORIZATION, &self.bearer).send().await?.status())
    }

    async fn gets(&self, wanted: StatusCode) -> Result<()> {
        let is_so = async || Ok((self.status().await? == wanted).then_some(()));
        until(&format!("{wanted} for the key"), is_so).await
    }
}

/// Makes a key by the command; the program that has it, and what the log calls it.
fn program(up: &Up, tenant: &Tenant) -> Result<(Program, String)> {
    let made = up.insula(&["apikey", "create", "nightly", "--tenant", &tenant.slug, "--scope", "read"])?;
    let (id, secret) = (made["id"].as_str().context("no id")?, made["secret"].as_str().context("no key")?);
    let page = format!("{}/login", up.ready.gateway_url.trim_end_matches('/'));
    let host = format!("{}.localhost", tenant.slug);
    Ok((Program { http: Client::new(), page, host, bearer: format!("Bearer {secret}") }, format!("key:{id}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_says_who_it_was_and_refuses_whom_it_must() -> Result<()> {
    let (collector, url) = Collector::open().await?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(bin("insula")?);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", url).env("OTEL_BSP_SCHEDULE_DELAY", "100");
    let up = Up::start_as(&folder.path().join("data"), command, &["--no-demo"])?;
    let (seen, other) = (up.tenant("observed", "gold", "row")?, up.tenant("neighbour", "gold", "row")?);

    let (program, principal) = program(&up, &seen)?;
    program.gets(StatusCode::OK).await.context("a new key")?;
    // Of another tenant it opens nothing.
    let elsewhere = Program { host: format!("{}.localhost", other.slug), ..clone_of(&program) };
    assert_eq!(elsewhere.status().await?, StatusCode::FORBIDDEN);

    the_admin_port_names_tenants_where_it_may(&up, &seen, &program).await?;
    the_log_says_who_it_was(&up, &seen, &principal).await?;
    a_trace_goes_through(&up, &seen, &collector).await?;

    // Revoked by its name: refused by the gateway, which is connected, and for good.
    assert!(up.insula(&["apikey", "revoke", "nightly", "--tenant", &seen.slug])?["revoked_at"].is_string());
    program.gets(StatusCode::UNAUTHORIZED).await.context("a revoked key")?;
    for _ in 0..20 {
        assert_eq!(program.status().await?, StatusCode::UNAUTHORIZED, "a revoked key was believed again");
    }
    // Nobody else is.
    User::log_in(&up, &seen).await?;
    up.stop()
}

fn clone_of(program: &Program) -> Program {
    let Program { http, page, host, bearer } = program;
    Program { http: http.clone(), page: page.clone(), host: host.clone(), bearer: bearer.clone() }
}

/// `/top` names who uses the most; no metric names anybody.
async fn the_admin_port_names_tenants_where_it_may(up: &Up, tenant: &Tenant, program: &Program) -> Result<()> {
    let processes = up.ready_now()?.processes;
    let gateway = processes.into_iter().find(|process| process.role == "gateway").context("no gateway")?;
    let admin = gateway.admin_url.context("no admin port")?;
    for _ in 0..50 {
        assert_eq!(program.status().await?, StatusCode::OK);
    }
    let top = until("the tenant in /top", async || {
        let view: Value = reqwest::get(format!("{admin}/top")).await?.json().await?;
        let first = view["top"]["requests"][0].clone();
        Ok((first["amount"].as_u64() >= Some(50)).then_some(first))
    })
    .await?;
    assert_eq!(top["tenant"], tenant.slug.as_str(), "{top}");

    let metrics = reqwest::get(format!("{admin}/metrics")).await?.text().await?;
    let counted =
        metrics.lines().filter(|line| line.starts_with("insula_requests_total{") && line.contains("tier=\"gold\"")).count();
    ensure!(counted > 0, "no metric by tier after real traffic:\n{metrics}");
    for label in FORBIDDEN_LABELS {
        ensure!(!metrics.contains(&format!("{{{label}=\"")) && !metrics.contains(&format!(",{label}=\"")), "a label {label}");
    }
    ensure!(!metrics.contains(&tenant.slug) && !metrics.contains(&tenant.id), "a metric names a tenant:\n{metrics}");
    Ok(())
}

/// A line of the gateway's log is JSON, with tenant and principal.
async fn the_log_says_who_it_was(up: &Up, tenant: &Tenant, principal: &str) -> Result<()> {
    let log = up.data().join("logs/gateway.log");
    let line = until("the request in the log", async || {
        let text = std::fs::read_to_string(&log)?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines
            .filter(|line| line["target"] == "insula::request" && line["status"] == 200)
            .find(|line| line["principal"] == principal))
    })
    .await?;
    let expected = [("tenant", tenant.slug.as_str()), ("method", "GET"), ("path", "/login"), ("tier", "gold"), ("cell", "main")];
    for (name, value) in expected {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    ensure!(line["request_id"].is_string() && line["ms"].is_number(), "{line}");
    Ok(())
}

/// One trace: the caller's, the gateway's span of the request, the application's of the same, and the attempt at the job that it enqueued.
async fn a_trace_goes_through(up: &Up, tenant: &Tenant, collector: &Collector) -> Result<()> {
    let user = User::log_in(up, tenant).await?;
    user.write("Traced", "from end to end").await?;
    let asked = Client::new()
        .request(Method::POST, format!("{}/api/exports", up.ready.gateway_url.trim_end_matches('/')))
        .header(HOST, format!("{}.localhost", tenant.slug))
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .bearer_auth(user.token())
        .json(&json!({"format": "zip"}))
        .send()
        .await?;
    assert_eq!(asked.status(), StatusCode::ACCEPTED);
    let job: Value = asked.json().await?;

    let request = collector.span("insula-gateway", "request").await?;
    assert_eq!(hex(&request.parent_span_id), PARENT, "it hangs on its caller's");
    let expected = [("tenant.id", tenant.id.as_str()), ("url.path", "/api/exports"), ("http.response.status_code", "202")];
    for (name, value) in expected {
        assert_eq!(text(&request.attributes, name).as_deref(), Some(value), "{name}: {request:?}");
    }
    let upstream = collector.span("insula-app", "request").await?;
    assert_eq!(hex(&upstream.parent_span_id), hex(&request.span_id), "what came upstream was not the gateway's span");
    assert_eq!(text(&upstream.attributes, "tenant.id"), text(&request.attributes, "tenant.id"));
    let attempt = collector.span("insula-worker", "job").await?;
    assert_eq!(hex(&attempt.parent_span_id), hex(&upstream.span_id), "the job is not of the request that asked for it");
    for (name, value) in [("tenant.id", tenant.id.as_str()), ("job.kind", "export"), ("job.id", job["id"].as_str().unwrap())] {
        assert_eq!(text(&attempt.attributes, name).as_deref(), Some(value), "{name}: {attempt:?}");
    }
    Ok(())
}
