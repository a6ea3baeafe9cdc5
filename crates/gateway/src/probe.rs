//! What load balancers ask at the port that they send requests to: whether this gateway lives, and whether it may get requests.
//!
//! For: `/healthz` and `/readyz` by address (`Host: 10.0.0.7:8080`), or without a host (HTTP/1.0), as load balancers ask. Not for: a host name:
//! those paths are its tenant's own there. Always: answered from memory, and with nothing of the inside; the admin port says which gate is closed.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use insula_catalog::host;

use crate::body::Body;
use crate::worker::Worker;

/// The answer, when it is such a question.
#[inline]
pub(crate) fn answer(worker: &Worker, head: &Parts) -> Option<Response<Body>> {
    match head.uri.path() {
        "/healthz" if is_to_us(head) => Some(say(StatusCode::OK, "ok\n")),
        "/readyz" if is_to_us(head) => Some(if worker.is_draining() || !worker.shared.readiness.is_ready() {
            say(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        } else {
            say(StatusCode::OK, "ready\n")
        }),
        _ => None,
    }
}

/// Whether it names no host, and so no tenant.
fn is_to_us(head: &Parts) -> bool {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return false;
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let named = match (head.uri.authority(), hosts.next()) {
        (Some(authority), _) => Some(authority.as_str()),
        (None, Some(host)) => host.to_str().ok(),
        // It is a fault in a later version (RFC 9112, section 3.2).
        (None, None) => return head.version == Version::HTTP_10,
    };
    hosts.next().is_none() && named.is_some_and(|name| host::parse(name).is_ok_and(|host| host.is_address()))
}

fn say(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
