//! Traces: spans to an OTLP collector over HTTP, and the W3C context that ties those of several processes together.
//!
//! Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) is set; the other `OTEL_*` variables hold as specified, the
//! sampler's among them (default: as the caller of this process decided, else always). Off, a request's `traceparent` travels on as it came. Always:
//! `tenant.id` is an attribute of a request's span, and of a job's; a caller's decision not to sample is kept.

use std::sync::OnceLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use insula_core::TenantId;
use insula_core::context::Trace;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::error::Error;

const TRACEPARENT: &str = "traceparent";
/// The same, hashed and compared without being parsed.
const PARENT: HeaderName = HeaderName::from_static(TRACEPARENT);

const SWITCHES: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// As the log's subscriber, one a process.
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// The layer that makes OpenTelemetry spans of `tracing` spans; `None` when traces are off.
///
/// # Errors
/// When the collector's address cannot be understood.
pub(crate) fn layer<S>(service: &'static str) -> Result<Option<OpenTelemetryLayer<S, opentelemetry_sdk::trace::SdkTracer>>, Error>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    if !SWITCHES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
    let exporter = exporter.map_err(|error| Error::Traces(error.to_string()))?;
    // What the environment says of the service (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) comes before ours.
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(format!("insula-{service}"));
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let tracer = provider.tracer("insula");
    let _already = PROVIDER.set(provider);
    Ok(Some(tracing_opentelemetry::layer().with_tracer(tracer)))
}

/// Whether traces are on.
#[must_use]
pub fn is_on() -> bool {
    PROVIDER.get().is_some()
}

/// Sends what waits: for the end of a process. Blocks for some seconds at most.
pub fn close() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown()
    {
        tracing::warn!(%error, "the last spans may not have arrived");
    }
}

/// The span of a request that came in, with its caller's as its parent. Its `tenant.id` is set when that is known: [`of_tenant`].
#[must_use]
pub fn request(headers: &HeaderMap, method: &str, path: &str, request_id: &str) -> Span {
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = method,
        url.path = path,
        http.response.status_code = tracing::field::Empty,
        tenant = tracing::field::Empty,
        tenant.id = tracing::field::Empty,
        request_id = request_id,
    );
    if is_on() {
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        // Fails when the span is not recorded: then there is nothing to tie.
        let _ = span.set_parent(parent);
    }
    span
}

/// The span of one attempt at a job, as a part of the trace of whoever asked for it. Whose it is: [`of_tenant`].
#[must_use]
pub fn job(asked: Option<&Trace>, kind: &str, id: impl std::fmt::Display, attempt: i32) -> Span {
    let span = tracing::info_span!(
        "job",
        otel.kind = "consumer",
        otel.status_code = tracing::field::Empty,
        job.kind = kind,
        job.id = %id,
        job.attempt = attempt,
        job.outcome = tracing::field::Empty,
        tenant = tracing::field::Empty,
        tenant.id = tracing::field::Empty,
    );
    if let Some(asked) = asked
        && is_on()
    {
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Asked(asked)));
    }
    span
}

/// Says how the attempt ended.
pub fn job_ended(span: &Span, outcome: &str, failed: bool) {
    span.record("job.outcome", outcome);
    if failed {
        span.record("otel.status_code", "ERROR");
    }
}

/// The trace that work inside this span is part of, to hand on; `None` when traces are off.
#[must_use]
pub fn of(span: &Span) -> Option<Trace> {
    let mut headers = HeaderMap::new();
    inject(span, &mut headers);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Trace::read(text(TRACEPARENT)?, text("tracestate"))
}

/// Says whose the span is.
pub fn of_tenant(span: &Span, tenant: TenantId, slug: &str) {
    span.record("tenant", slug);
    span.record("tenant.id", tracing::field::display(tenant));
}

/// Says how it ended.
pub fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// Writes the span's context into a request that goes out on its behalf.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    if is_on() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut HeadersOut(headers));
    }
}

/// Writes the context of the work that runs now into a request that it sends.
pub fn inject_current(headers: &mut HeaderMap) {
    inject(&Span::current(), headers);
}

/// The trace of a request: the span's, or without one what the caller said.
#[must_use]
pub fn id(span: &Span, headers: &HeaderMap) -> Option<[u8; 32]> {
    if is_on() {
        let context = span.context();
        let trace = context.span().span_context().trace_id();
        return (trace != opentelemetry::TraceId::INVALID).then(|| trace.to_string().as_bytes().try_into().ok()).flatten();
    }
    said(headers.get(PARENT)?.as_bytes())
}

/// The trace id of a `traceparent` (W3C Trace Context, level 1): `00-<32 hex>-<16 hex>-<2 hex>`.
fn said(traceparent: &[u8]) -> Option<[u8; 32]> {
    let id: [u8; 32] = traceparent.get(3..35)?.try_into().ok()?;
    let lower_hex = id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let framed = traceparent.get(2) == Some(&b'-') && traceparent.get(35) == Some(&b'-') && traceparent.len() >= 55;
    (lower_hex && framed && id != [b'0'; 32]).then_some(id)
}

/// What was kept of a request, as its headers had it.
struct Asked<'a>(&'a Trace);

impl Extractor for Asked<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(&self.0.parent),
            "tracestate" => self.0.state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, "tracestate"]
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersOut<'a>(&'a mut HeaderMap);

impl Injector for HeadersOut<'_> {
    fn set(&mut self, key: &str, value: String) {
        // A `tracestate` of nobody: nothing says that as well (W3C Trace Context, section 3.3.1.1).
        if value.is_empty() {
            self.0.remove(key);
            return;
        }
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_state_is_not_sent() {
        let mut headers = HeaderMap::new();
        let mut out = HeadersOut(&mut headers);
        out.set("traceparent", "00-1".to_owned());
        out.set("tracestate", "a=1".to_owned());
        out.set("tracestate", String::new());
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["traceparent"]);
    }

    #[test]
    fn a_callers_trace_is_believed_when_it_is_one() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(said(good).unwrap(), *b"4bf92f3577b34da6a3ce929d0e0e4736");
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e\n736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(said(bad.as_bytes()), None, "{bad}");
        }
    }
}
