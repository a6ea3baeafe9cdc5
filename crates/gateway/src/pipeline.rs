//! What happens to a request, in order.
//!
//! Name it, check that it is one sentence, find its tenant, make its header ours, send it to the tenant's cell, make the answer one for the
//! client. Always: who is refused hears why in a problem body with the request's id; nothing here waits without an end.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use insula_catalog::Route;
use insula_core::{Kind, TenantState};

use crate::body::{Body, Fault, Progress, RequestBody};
use crate::config::ms;
use crate::connection::{Peer, watched};
use crate::headers::{self, REQUEST_ID};
use crate::refusal;
use crate::upgrade::{self, Wish};
use crate::upstream::{Endpoint, Failure, Streaming};
use crate::watch::{Phase, Watch};
use crate::worker::Worker;

/// Why a request gets an answer of our own.
enum Refusal {
    /// Not one sentence: 400, or another status of its class.
    Malformed(u16, &'static str),
    /// Anything else.
    Kind(Kind, &'static str),
}

const AWAY: Refusal = Refusal::Kind(Kind::Unavailable, "The application does not answer.");

/// Answers a request of an HTTP/1 connection.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    watch.enter(Phase::Answer, watch.timeouts().request_ms);
    // The client may have meant two requests by a body that has two lengths; behind it, nothing is believed (RFC 9112, section 6.3).
    let is_last = request.headers().contains_key(TRANSFER_ENCODING);
    let mut response = answer(&worker, &peer, &watch, request).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    if is_last || worker.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // Until the next request begins; a streamed body extends it.
    match response.body() {
        Body::Stream(stream) if !stream.is_end() => watch.enter(Phase::Stream, watch.timeouts().stream_ms),
        _ => watch.enter(Phase::Idle, watch.timeouts().idle_ms),
    }
    Ok(response)
}

/// Answers a request of an HTTP/2 connection.
pub(crate) async fn handle_stream(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    watch.enter(Phase::Answer, watch.timeouts().request_ms);
    let response = watched(&watch, answer(&worker, &peer, &watch, request)).await;
    watch.enter(Phase::Stream, watch.timeouts().stream_ms);
    Ok(response)
}

async fn answer(worker: &Rc<Worker>, peer: &Peer, watch: &Arc<Watch>, mut request: Request<Incoming>) -> Response<Body> {
    let wish = Wish::of(&mut request, &worker.shared.config.upstream.upgrades);
    let (mut head, body) = request.into_parts();
    let id = request_id(worker, peer, &head);
    let outcome = async {
        let host = sentence(&mut head)?;
        let route = resolve(worker, &head, &host).await?;
        let limit = route.plan.limits.max_body_bytes;
        fits(&head, limit)?;
        let upstream = worker.cells.get(&route.placement.cell, &worker.shared.catalog);
        let upstream = upstream.ok_or(Refusal::Kind(Kind::Unavailable, "The tenant's cell has no application."))?;
        headers::of_request(&mut head.headers, peer, &host);
        head.headers.insert(REQUEST_ID, id.clone());
        let progress = Rc::new(Progress::default());
        let body = RequestBody::of(body, limit, &progress, watch);
        if matches!(body, RequestBody::Empty) {
            watch.enter(Phase::Answer, watch.timeouts().response_ms);
        }
        let endpoint = upstream.pick().ok_or(AWAY)?;
        let Some(wish) = wish else {
            return forward(endpoint, Request::from_parts(head, body), &progress, watch).await;
        };
        wish.write(&mut head.headers);
        let answered = upgrade::forward(worker, endpoint, wish, Request::from_parts(head, body), watch).await;
        answered.map_err(|error| {
            tracing::warn!(endpoint = endpoint.authority(), %error, "cannot upgrade");
            AWAY
        })
    };
    match outcome.await {
        Ok(mut response) => {
            let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            headers::of_response(response.headers_mut(), is_upgrade);
            response.headers_mut().entry(REQUEST_ID).or_insert(id);
            response
        }
        Err(Refusal::Malformed(status, detail)) => refusal::of_status(Kind::Invalid, status, detail, &id),
        Err(Refusal::Kind(kind, detail)) => refusal::problem(kind, detail, &id),
    }
}

/// The id that a trusted proxy gave it, or a new one.
fn request_id(worker: &Worker, peer: &Peer, head: &Parts) -> HeaderValue {
    let given = head.headers.get(REQUEST_ID).filter(|_| peer.is_trusted);
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match given {
        Some(id) if (8..=64).contains(&id.len()) && id.as_bytes().iter().all(plain) => id.clone(),
        _ => worker.ids.next(worker.unix_ms.get()),
    }
}

/// Checks what could be read in two ways, and brings the target to its origin form. Answers the host, as the client wrote it.
fn sentence(head: &mut Parts) -> Result<HeaderValue, Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Malformed(405, "CONNECT is not served here."));
    }
    let mut encodings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next()
        && (!encoding.as_bytes().eq_ignore_ascii_case(b"chunked") || encodings.next().is_some())
    {
        return Err(Refusal::Malformed(501, "A body may be encoded as chunked, and once."));
    }
    let mut named = head.headers.get_all(HOST).iter();
    let (first, second) = (named.next().cloned(), named.next());
    if second.is_some() {
        return Err(Refusal::Malformed(400, "The request has more than one Host header."));
    }
    if head.uri.authority().is_none() {
        head.version = Version::HTTP_11;
        return first.ok_or(Refusal::Malformed(400, "The request names no host."));
    }
    // Absolute form, or HTTP/2: both say the same, or nothing is believed.
    insula_http::host::of(&head.headers, &head.uri).map_err(|_| Refusal::Malformed(400, "The request names two hosts."))?;
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::from_str(authority).map_err(|_| Refusal::Malformed(400, "The host is not a host name."))?;
    head.uri = head.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    head.headers.insert(HOST, host.clone());
    head.version = Version::HTTP_11;
    Ok(host)
}

/// The tenant of the host.
async fn resolve(worker: &Worker, head: &Parts, host: &HeaderValue) -> Result<Arc<Route>, Refusal> {
    let catalog = &worker.shared.catalog;
    let known = |text: &str| catalog.look(|view| view.by_host(text).cloned());
    let text = host.to_str().map_err(|_| Refusal::Malformed(400, "The Host header is not a host name."))?;
    let mut route = known(text);
    if route.is_none() {
        insula_http::host::of(&head.headers, &head.uri)
            .map_err(|_| Refusal::Malformed(400, "The Host header is not a host name."))?;
        // Perhaps it was made a moment ago: look once, with everybody else who asks at this moment.
        let _ = tokio::time::timeout(ms(worker.shared.config.catalog.catch_up_ms), catalog.refresh()).await;
        route = known(text);
    }
    match route {
        Some(route) if route.state == TenantState::Active => Ok(route),
        Some(route) if route.state == TenantState::Suspended => Err(Refusal::Kind(Kind::Suspended, "")),
        // A tenant in the making and a deleted one are as good as none: no existence probe.
        _ => Err(Refusal::Kind(Kind::NoTenant, "No tenant answers to this host name.")),
    }
}

/// Whether the body that is announced may come.
fn fits(head: &Parts, most: u64) -> Result<(), Refusal> {
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(Refusal::Kind(Kind::TooLarge, "The body is larger than the plan allows."));
    }
    Ok(())
}

/// Sends the request to one of the cell's applications.
async fn forward(
    endpoint: &Rc<Endpoint>,
    mut request: Request<RequestBody>,
    progress: &Progress,
    watch: &Arc<Watch>,
) -> Result<Response<Body>, Refusal> {
    loop {
        let mut link = match endpoint.take_idle() {
            Some(link) => link,
            None => endpoint.connect().await.map_err(|error| {
                tracing::warn!(endpoint = endpoint.authority(), %error, "cannot connect");
                AWAY
            })?,
        };
        match link.send(request, watch).await {
            // Nobody asked for that; what follows is not HTTP.
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => return Err(AWAY),
            Ok(response) => {
                let stream = |body| Body::Stream(Streaming::new(body, link, Rc::clone(endpoint), Arc::clone(watch)));
                return Ok(response.map(stream));
            }
            // A connection that had been idle, closed by the other side: another one will do.
            Err(Failure::Unsent(unsent)) if link.is_used => request = *unsent,
            Err(failure) => return Err(blame(failure, progress)),
        }
    }
}

/// Whose fault it is that there is no answer.
fn blame(failure: Failure, progress: &Progress) -> Refusal {
    match (progress.fault.get(), failure) {
        (Some(Fault::TooLarge), _) => Refusal::Kind(Kind::TooLarge, "The body is larger than the plan allows."),
        (Some(Fault::Broken), _) => Refusal::Malformed(400, "The body broke off."),
        (None, Failure::Timeout) => Refusal::Kind(Kind::Timeout, "The application did not answer in time."),
        (None, Failure::Unsent(_)) => Refusal::Kind(Kind::Unavailable, "The application does not answer."),
        (None, Failure::Broken(error)) => {
            tracing::warn!(%error, "an application broke off");
            Refusal::Kind(Kind::Unavailable, "The application broke off.")
        }
    }
}
