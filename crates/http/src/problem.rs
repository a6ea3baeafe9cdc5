//! Answers that are not the good one, as `application/problem+json` (RFC 9457).
//!
//! Always: what a problem says was written for the client; nothing of an internal error gets in by itself.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use insula_api::FieldError;
use insula_core::{Kind, scope};

/// The media type (RFC 9457, section 3).
pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static(insula_api::problem::MEDIA_TYPE);

/// A problem as an answer: the body that [`insula_api`] defines, with the headers that belong to it.
#[derive(Clone, Debug)]
pub struct Problem {
    body: insula_api::Problem,
    retry_after: Option<Duration>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem of a kind, in general words.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let retry_after = matches!(kind, Kind::Limited | Kind::Unavailable | Kind::Moved).then_some(Duration::from_secs(1));
        Self { body: insula_api::Problem::new(kind, ""), retry_after, headers: HeaderMap::new() }
    }

    /// A request that is no sentence at all: 400.
    #[must_use]
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid).status(StatusCode::BAD_REQUEST).detail(detail)
    }

    /// The same problem with another status of its class.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.body.status = status.as_u16();
        self
    }

    /// A problem for a status that somebody else chose.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        let kind = insula_api::problem::kind_of_status(status.as_u16());
        let mut problem = Self::new(kind).status(status);
        if kind.status() != status.as_u16() {
            problem.body.title = status.canonical_reason().unwrap_or("Error").to_owned();
        }
        problem
    }

    /// Says what happened; the client will read it.
    #[must_use]
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.body.detail = text.into();
        self
    }

    /// Names a field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.body.errors.push(FieldError { field: field.into(), detail: detail.into() });
        self
    }

    /// The request it answers.
    #[must_use]
    pub fn request_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.body.request_id);
        self
    }

    /// When to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// A header that goes with it.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &insula_api::Problem {
        &self.body
    }
}

impl Problem {
    /// The answer, its body as bytes: for whoever has bodies of another sort.
    #[must_use]
    pub fn into_bytes(mut self) -> http::Response<Bytes> {
        if self.body.request_id.is_empty()
            && let Ok(context) = scope::current()
        {
            context.request_id.as_ref().clone_into(&mut self.body.request_id);
        }
        // A struct of strings and numbers always serialises.
        let mut response = http::Response::new(Bytes::from(serde_json::to_vec(&self.body).unwrap_or_default()));
        *response.status_mut() = StatusCode::from_u16(self.body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_bytes().map(Body::from)
    }
}

/// Rounded up: who comes back then is not refused again for having been a moment early. At least 1.
pub(crate) fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

const LONGEST_TEXT: usize = 500;

/// Turns a bare or plain-text error (a framework's 404, 405, rejection) into a problem; leaves everything else alone. What a
/// 5xx said stays here: it was hardly written for the client.
pub(crate) async fn normalise(response: Response) -> Response {
    let status = response.status();
    let plain =
        response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("text/plain")));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let mut problem = Problem::of_status(status);
    if status.is_client_error()
        && let Ok(text) = to_bytes(body, 4096).await
        && let Ok(text) = std::str::from_utf8(&text)
        && !text.is_empty()
    {
        problem = problem.detail(text.chars().take(LONGEST_TEXT).collect::<String>());
    }
    let (new, body) = problem.into_response().into_parts();
    parts.headers.remove(http::header::CONTENT_LENGTH);
    parts.headers.extend(new.headers);
    Response::from_parts(parts, Body::new(body))
}
