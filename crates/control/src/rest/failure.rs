//! Answers that are not a success.
//!
//! A handler fails with [`Failure`]; [`dress`], the outermost layer, is the one place that writes problem bodies, so that
//! whatever refuses (a handler, an extractor, the router, a panic) looks the same and says nothing of the inside.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use insula_api::problem::{MEDIA_TYPE, kind_of_status};
use insula_api::{FieldError, Problem};
use insula_core::Kind;
use tracing::Instrument as _;

use crate::error::Error;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a request is refused. Holds what the caller may read, and only that.
#[derive(Debug, Clone)]
pub(crate) struct Failure(Box<Problem>, Option<(HeaderName, HeaderValue)>);

impl Failure {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(kind, detail)), None)
    }

    pub(super) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::field(field, detail)), None)
    }

    /// The same with a header.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.1 = Some((name, value));
        self
    }

    /// The same with a status that no kind stands for.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status.as_u16();
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        match kind {
            Kind::Internal => tracing::error!(%error, "request failed"),
            Kind::Unavailable | Kind::Timeout => tracing::warn!(%error, "request failed"),
            _ => tracing::debug!(%error, "request refused"),
        }
        let mut problem = Problem::new(kind, error.public());
        if let Error::Invalid { field, detail } = error {
            problem.detail.clone_from(&detail);
            problem.errors.push(FieldError { field: field.to_owned(), detail });
        }
        Self(Box::new(problem), None)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if let Some((name, value)) = self.1.clone() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives each request an id, and each refusal its body.
pub(super) async fn dress(request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!("rest", method = %request.method(), %path, request_id = %id);
    let mut response = next.run(request).instrument(span).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        response = problem_response(response, path, id.clone());
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn problem_response(response: Response, path: String, id: String) -> Response {
    let (mut parts, _) = response.into_parts();
    let status = parts.status;
    let mut problem = match parts.extensions.remove::<Failure>() {
        Some(Failure(problem, _)) => *problem,
        None => bare(status),
    };
    problem.instance = path;
    problem.request_id = id;
    parts.headers.remove("content-length");
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if status == StatusCode::UNAUTHORIZED {
        parts.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"insula\""));
    }
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        parts.headers.entry(RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
    }
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    Response::from_parts(parts, Body::from(body))
}

/// What the router or a layer refused by itself.
fn bare(status: StatusCode) -> Problem {
    let detail = match status {
        StatusCode::NOT_FOUND => "there is nothing at this path; see /v1/openapi.json",
        StatusCode::METHOD_NOT_ALLOWED => "this path does not take this method; see the Allow header",
        StatusCode::INTERNAL_SERVER_ERROR => "a fault in the control plane; its log has the reason",
        _ => "",
    };
    let mut problem = Problem::new(kind_of_status(status.as_u16()), detail);
    problem.status = status.as_u16();
    problem
}

/// The caller's own id when it is harmless, else a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|v| v.to_str().ok());
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    given.filter(harmless).map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}
