//! Answers that are a success.

use axum::Json;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;

/// What a handler gives.
pub(super) type Answer = Result<Response, Failure>;

/// What is told when the same request comes again with its idempotency key: the answer without its secrets.
#[derive(Clone)]
pub(super) struct Replay(pub(super) Value);

/// 200 with a body.
pub(super) fn ok(body: &impl Serialize) -> Answer {
    Ok((StatusCode::OK, Json(body)).into_response())
}

/// 200 with a body and its version.
pub(super) fn versioned(body: &impl Serialize, version: i64) -> Answer {
    let mut response = (StatusCode::OK, Json(body)).into_response();
    set(&mut response, ETAG, &format!("\"{version}\""));
    Ok(response)
}

/// A status with a body, and where to find what it tells of.
pub(super) fn at(status: StatusCode, location: &str, body: &impl Serialize) -> Answer {
    let mut response = (status, Json(body)).into_response();
    set(&mut response, LOCATION, location);
    Ok(response)
}

/// 201.
pub(super) fn created(location: &str, body: &impl Serialize) -> Answer {
    at(StatusCode::CREATED, location, body)
}

/// Names what a repeated request is told instead.
pub(super) fn with_replay(answer: Answer, replay: &impl Serialize) -> Answer {
    let mut response = answer?;
    response.extensions_mut().insert(Replay(serde_json::to_value(replay).unwrap_or_default()));
    Ok(response)
}

fn set(response: &mut Response, name: axum::http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
