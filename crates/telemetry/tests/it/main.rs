//! Traces, sent by real processes to a collector that decodes what the protocol says (OTLP/HTTP, protobuf).
//!
//! Whether traces are on is a matter of a process and its environment; so the test starts itself again as such a process.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http::HeaderMap;
use insula_core::TenantId;
use insula_core::context::Trace;
use insula_telemetry::{logs, trace};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const TENANT: &str = "0190f8c0-0000-7000-8000-000000000001";

type Received = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

async fn collector() -> (String, Received) {
    let received = Received::default();
    let store = received.clone();
    let take = post(move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        store.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", take)).await });
    (url, received)
}

/// Runs [`a_process`] in a process of its own; answers what it printed.
async fn run(env: &[(&str, &str)]) -> String {
    run_as("a_process", env).await
}

/// Runs one of the ignored tests in a process of its own; answers what it printed.
async fn run_as(test: &str, env: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture"]).stderr(Stdio::null());
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").envs(env.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("OUT ").map(str::to_owned))
        .unwrap_or_default()
}

/// A process that serves one request and makes a call for it.
#[test]
#[ignore = "the other tests run it"]
fn a_process() {
    logs::init("test").unwrap();
    let mut incoming = HeaderMap::new();
    if let Ok(parent) = std::env::var("TEST_TRACEPARENT") {
        incoming.insert("traceparent", parent.parse().unwrap());
    }
    let span = trace::request(&incoming, "GET", "/documents", "request-1");
    trace::of_tenant(&span, TENANT.parse::<TenantId>().unwrap(), "acme");
    let mut outgoing = HeaderMap::new();
    span.in_scope(|| {
        let _inner = tracing::info_span!("query").entered();
        trace::inject_current(&mut outgoing);
    });
    trace::answered(&span, 503);
    let id = trace::id(&span, &incoming).map(|id| String::from_utf8(id.to_vec()).unwrap());
    println!("OUT {} {}", id.unwrap_or_default(), outgoing.get("traceparent").map_or("-", |value| value.to_str().unwrap()));
    drop(span);
    trace::close();
    logs::flush();
}

/// A process that tries one job, which makes a call.
#[test]
#[ignore = "the other tests run it"]
fn a_worker() {
    logs::init("worker").unwrap();
    let asked = Trace::read(&std::env::var("TEST_TRACEPARENT").unwrap(), None);
    let span = trace::job(asked.as_ref(), "export", TENANT, 2);
    trace::of_tenant(&span, TENANT.parse::<TenantId>().unwrap(), "acme");
    trace::job_ended(&span, "retry", true);
    println!("OUT {}", trace::of(&span).map_or_else(|| "-".to_owned(), |trace| trace.parent.to_string()));
    drop(span);
    trace::close();
    logs::flush();
}

fn spans(received: &Received) -> Vec<Span> {
    let all = received.lock().unwrap();
    all.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans).flat_map(|s| s.spans.clone()).collect()
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    span.attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requests_span_arrives_with_its_tenant_under_its_caller() {
    let (url, received) = collector().await;
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let out = run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("TEST_TRACEPARENT", &parent)]).await;
    let spans = spans(&received);
    let request = spans.iter().find(|span| span.name == "request").unwrap();
    let query = spans.iter().find(|span| span.name == "query").unwrap();
    assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!(query.parent_span_id, request.span_id);
    assert_eq!(attribute(request, "tenant.id"), Some(Value::StringValue(TENANT.to_owned())));
    assert_eq!(attribute(request, "http.response.status_code"), Some(Value::IntValue(503)));
    assert_eq!((request.kind, request.status.as_ref().unwrap().code), (2, 2), "a server's span, and an error");
    // What the process calls hangs on the span that called.
    assert_eq!(out, format!("{TRACE} 00-{TRACE}-{}-01", hex(&query.span_id)));
    let resource = received.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap();
    let name = resource.attributes.iter().find(|pair| pair.key == "service.name").unwrap();
    assert_eq!(name.value.clone().unwrap().value, Some(Value::StringValue("insula-test".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_did_not_want_to_be_sampled_is_not_and_the_environment_may_say_so_too() {
    let (url, received) = collector().await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let out = run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("TEST_TRACEPARENT", &unsampled)]).await;
    assert!(out.ends_with("-00") && out.contains(TRACE), "the decision travels on: {out}");
    run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_TRACES_SAMPLER", "always_off")]).await;
    assert!(spans(&received).is_empty());
    run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).await;
    assert_eq!(spans(&received).len(), 2, "a trace begins here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_nothing_is_traced_and_the_callers_trace_is_known_all_the_same() {
    let parent = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(run(&[("TEST_TRACEPARENT", &parent)]).await, format!("{TRACE} -"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_part_of_the_trace_of_who_asked_for_it() {
    let (url, received) = collector().await;
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let out = run_as("a_worker", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("TEST_TRACEPARENT", &parent)]).await;
    let spans = spans(&received);
    let job = spans.iter().find(|span| span.name == "job").unwrap();
    assert_eq!((hex(&job.trace_id), hex(&job.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!((job.kind, job.status.as_ref().unwrap().code), (5, 2), "a consumer's span, and an error");
    for (key, value) in [("job.kind", "export"), ("job.id", TENANT), ("job.outcome", "retry"), ("tenant.id", TENANT)] {
        assert_eq!(attribute(job, key), Some(Value::StringValue(value.to_owned())), "{key}");
    }
    assert_eq!(attribute(job, "job.attempt"), Some(Value::IntValue(2)));
    // What it calls hangs on it.
    assert_eq!(out, format!("00-{TRACE}-{}-01", hex(&job.span_id)));
    assert_eq!(run_as("a_worker", &[("TEST_TRACEPARENT", &parent)]).await, "-", "off");
}
