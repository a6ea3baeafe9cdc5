//! Answers of the gateway itself, as problems (RFC 9457).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use insula_core::Kind;

use crate::body::Body;
use crate::headers::REQUEST_ID;

/// A problem of a kind, in words for the client.
pub(crate) fn problem(kind: Kind, detail: &str, request_id: &HeaderValue) -> Response<Body> {
    of_status(kind, kind.status(), detail, request_id)
}

/// The same with another status of its class.
pub(crate) fn of_status(kind: Kind, status: u16, detail: &str, request_id: &HeaderValue) -> Response<Body> {
    let mut problem = insula_api::Problem::new(kind, detail);
    problem.status = status;
    problem.request_id = request_id.to_str().unwrap_or_default().to_owned();
    // A struct of strings and numbers always serialises.
    let body = Bytes::from(serde_json::to_vec(&problem).unwrap_or_default());
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(insula_api::problem::MEDIA_TYPE));
    headers.insert(REQUEST_ID, request_id.clone());
    if matches!(kind, Kind::Limited | Kind::Unavailable | Kind::Moved) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
