//! What happens to a request, in order.
//!
//! Name it, check that it is one sentence, prove who asks, find whose request it is (and wait while that tenant moves), see that it may go on, make its head ours, sign for it,
//! send it to the tenant's cell, make the answer one for the client. Always: who is refused hears why in a problem body with the
//! request's id; nothing here waits without an end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::poll;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use insula_catalog::Found;
use insula_core::Principal;
use insula_http::admit::{Outcome, Permit};
use insula_http::identity::CONTEXT;
use insula_http::observe::{Observation, Observed};
use insula_http::resolve::{self, Asked, Resolved};
use insula_http::{Identity, host};
use insula_telemetry::trace;
use tracing::{Instrument as _, Span};

use crate::afterwards::{Afterwards, Kept};
use crate::body::{Body, Progress, RequestBody};
use crate::connection::Peer;
use crate::forward::{self, Call};
use crate::headers::{self, REQUEST_ID};
use crate::probe;
use crate::refusal::Refusal;
use crate::scratch;
use crate::standing::Standing;
use crate::streams::Pieces;
use crate::upgrade::{self, Wish};
use crate::watch::{Phase, Watch};
use crate::worker::Worker;

/// The time that a request's body has before its client is called slow.
const PROMPT: Duration = Duration::from_secs(1);

/// Answers a request of an HTTP/1 connection.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    (watch, afterwards): (Arc<Watch>, Rc<Afterwards>),
    request: Request<Incoming>,
) -> Result<Response<Kept>, Infallible> {
    watch.enter(Phase::Answer, watch.timeouts().request_ms);
    // The client may have meant two requests by a body that has two lengths; behind it, nothing is believed (RFC 9112, section 6.3).
    let is_last = request.headers().contains_key(TRANSFER_ENCODING);
    let mut response = answer_incoming(&worker, &peer, &watch, request).await.map(|body| Kept::new(body, afterwards));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    if is_last || worker.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    await_client(&watch, response.body().get_ref());
    Ok(response)
}

/// Answers a request of an HTTP/1 connection that was read without hyper.
pub(crate) async fn handle_direct(
    worker: &Rc<Worker>,
    peer: &Rc<Peer>,
    watch: &Arc<Watch>,
    head: Parts,
) -> Response<Observed<Body>> {
    watch.enter(Phase::Answer, watch.timeouts().request_ms);
    let mut response = answer(worker, peer, watch, head, None, None).await;
    if worker.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    await_client(watch, Some(response.body().get_ref()));
    response
}

/// Until the next request begins; a streamed body extends it.
pub(crate) fn await_client(watch: &Watch, body: Option<&Body>) {
    match body {
        Some(Body::Stream(stream)) if !stream.is_end() => watch.enter(Phase::Stream, watch.timeouts().stream_ms),
        _ => watch.enter(Phase::Idle, watch.timeouts().idle_ms),
    }
}

/// Answers a request of an HTTP/2 connection.
pub(crate) async fn handle_stream(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<Pieces>, Infallible> {
    watch.enter(Phase::Answer, watch.timeouts().request_ms);
    Ok(answer_incoming(&worker, &peer, &watch, request).await.map(|body| Pieces::new(body, watch)))
}

/// Answers a request that hyper has read.
async fn answer_incoming(
    worker: &Rc<Worker>,
    peer: &Peer,
    watch: &Arc<Watch>,
    mut request: Request<Incoming>,
) -> Response<Observed<Body>> {
    let wish = Wish::of(&mut request, &worker.shared.config.upstream.upgrades);
    let (head, body) = request.into_parts();
    answer(worker, peer, watch, head, (!body.is_end_stream()).then_some(body), wish).await
}

async fn answer(
    worker: &Rc<Worker>,
    peer: &Peer,
    watch: &Arc<Watch>,
    mut head: Parts,
    body: Option<Incoming>,
    wish: Option<Wish>,
) -> Response<Observed<Body>> {
    let id = request_id(worker, peer, &head);
    let span = span(&mut head, &id);
    let mut seen = Observation::begin(&worker.shared.senses, &head.method, &head.uri, id.clone());
    if let Some(trace) = trace::id(&span, &head.headers) {
        seen.trace(trace);
    }
    let accept = head.headers.get(ACCEPT).cloned();
    let outcome = {
        // Pinned where it is made: to move it would be to copy it whole.
        let gone = pin!(go(worker, peer, watch, head, body, wish, &id, &mut seen));
        if span.is_none() { gone.await } else { gone.instrument(span.clone()).await }
    };
    let response = match outcome {
        Ok(mut response) => {
            headers::of_response(&mut response);
            response.headers_mut().entry(REQUEST_ID).or_insert(id);
            response
        }
        Err(refusal) => refusal.into_response(&id, accept.as_ref()),
    };
    if !span.is_none()
        && let Some(tenant) = seen.tenant()
    {
        trace::of_tenant(&span, tenant.id(), tenant.slug.as_str());
    }
    trace::answered(&span, response.status().as_u16());
    seen.answered(response)
}

/// The request's span, where traces are on; what is upstream of us hangs on it.
fn span(head: &mut Parts, id: &HeaderValue) -> Span {
    if !trace::is_on() {
        return Span::none();
    }
    let span = trace::request(&head.headers, head.method.as_str(), head.uri.path(), id.to_str().unwrap_or("?"));
    trace::inject(&span, &mut head.headers);
    span
}

#[allow(clippy::too_many_arguments, reason = "the parts of one request")]
async fn go(
    worker: &Rc<Worker>,
    peer: &Peer,
    watch: &Arc<Watch>,
    mut head: Parts,
    body: Option<Incoming>,
    wish: Option<Wish>,
    id: &HeaderValue,
    seen: &mut Observation,
) -> Result<Response<Body>, Refusal> {
    let shared = &*worker.shared;
    is_one_sentence(&head)?;
    let host = host::of(&head.headers, &head.uri);
    if let Ok(host) = &host {
        shared.resolver.expect(host, &shared.catalog);
    }
    is_short(&head, shared.config.limits.header_bytes)?;
    let has_few_fields = head.headers.len() <= scratch::FIELDS;
    if let Some(answer) = probe::answer(worker, &head) {
        return Ok(answer);
    }
    let class = shared.admission.classes().of(&head.method, head.uri.path());
    let (identity, waited) = noting(shared.authenticator.authenticate(&head.headers)).await;
    let identity = identity?;
    if let Some(principal) = identity.principal() {
        seen.principal(Arc::clone(&principal.subject));
        // Where resolution looks for it.
        head.extensions.insert(Principal::clone(principal));
    }
    let credential = identity.principal().and_then(|_| head.headers.get(AUTHORIZATION).cloned());
    let host = host.map_err(resolve::Refusal::from)?;
    let asked = Asked { headers: &head.headers, uri: &head.uri, extensions: &head.extensions, host };
    let (tenant, moved) = noting(find(worker, &asked, &head.method)).await;
    // From here on, nothing that every request goes through looks at more of its tenant than the card.
    let tenant = tenant?;
    let limits = tenant.as_ref().map(|tenant| &tenant.plan.limits);
    let most = limits.map_or(u64::MAX, |limits| limits.max_body_bytes);
    let mut permit = None;
    if let Some(tenant) = &tenant {
        seen.is_of(tenant.clone());
        seen.class(shared.admission.classes().name(class));
        fits(&head, most)?;
        // A look at the clock takes longer than most of what follows: who has waited for nothing has begun just now.
        let moment = if waited || moved { Instant::now() } else { seen.started() };
        let permit = permit.insert(shared.admission.enter_at(tenant, class, moment)?);
        shared.admission.sit(permit, tenant).await?;
    }

    if head.version == Version::HTTP_2 {
        headers::of_http2(&mut head.headers);
    }
    let host = target(&mut head)?;
    headers::of_request(&mut head.headers, peer, host);
    head.headers.insert(REQUEST_ID, id.clone());
    sign(worker, &mut head, tenant.as_ref(), &identity);

    let within = limits.map_or(u64::MAX, |limits| limits.request_timeout_ms.into()).min(watch.timeouts().response_ms);
    let progress = match &body {
        None => Rc::clone(&worker.nothing_comes),
        Some(_) => Rc::new(Progress { spent: seen.spent(), ..Progress::default() }),
    };
    let body = RequestBody::of(body, most, within, &progress, watch);
    if body.size_hint().exact().is_none() {
        // Of a GET, hyper would leave out a body that does not say how long it is.
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let cell = worker.cells.of(tenant.as_ref(), &shared.catalog).ok_or_else(Refusal::away)?;
    let call = Call { worker, tenant: tenant.as_ref(), credential, cell: &cell, watch, progress: &progress, has_few_fields };
    let request = Request::from_parts(head, body);
    let outcome = match wish {
        None if progress.is_coming.get() => Box::pin(patiently(&progress, &mut permit, forward::send(&call, request))).await,
        None => forward::send(&call, request).await,
        Some(wish) => Box::pin(upgrade::send(&call, wish, request, permit.take())).await,
    };
    if let Some(permit) = &mut permit {
        let said = if progress.is_slow.get() { excuse(judge(&outcome)) } else { judge(&outcome) };
        permit.finish_at(said, seen.heard());
    }
    let mut response = outcome.map_err(forward::Failed::refusal)?;
    let lasts = lasts_without_work(response.headers());
    if let Body::Stream(stream) = response.body_mut() {
        seen.lasts();
        if let Some(mut permit) = permit {
            if lasts {
                permit.linger();
                stream.ends_with(Standing::new(tenant.as_ref(), call.credential.as_ref()).ends(&shared.catalog));
            }
            stream.hold(permit);
        }
    }
    Ok(response)
}

/// The id that a trusted proxy gave it, or a new one.
fn request_id(worker: &Worker, peer: &Peer, head: &Parts) -> HeaderValue {
    let given = if peer.is_trusted { head.headers.get(REQUEST_ID) } else { None };
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match given {
        Some(id) if (8..=64).contains(&id.len()) && id.as_bytes().iter().all(plain) => id.clone(),
        _ => worker.ids.next(worker.unix_ms.get()),
    }
}

/// Refuses what two readers could read in two ways, as far as hyper has not.
fn is_one_sentence(head: &Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::malformed(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served here."));
    }
    let mut encodings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next()
        && (!encoding.as_bytes().eq_ignore_ascii_case(b"chunked") || encodings.next().is_some())
    {
        return Err(Refusal::malformed(StatusCode::NOT_IMPLEMENTED, "A body may be encoded as chunked, and once."));
    }
    Ok(())
}

/// Refuses a head above the bound. While hyper reads one, it looks at the bound between two reads: what the last one brings is beyond it.
fn is_short(head: &Parts, most: usize) -> Result<(), Refusal> {
    if headers::bytes(head) > most {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Refusal::malformed(status, &format!("A request's head may have {most} bytes.")));
    }
    Ok(())
}

/// Whose request it is; nobody's, when it is the host side's.
async fn find(worker: &Worker, asked: &Asked<'_>, method: &Method) -> Result<Option<Found>, Refusal> {
    let shared = &*worker.shared;
    match shared.resolver.find(asked, &shared.catalog).await? {
        Resolved::Tenant { route, .. } => Ok(Some(worker.moves.settle(route, method, &shared.catalog).await?)),
        Resolved::HostSide => Ok(None),
    }
}

/// What comes of some work, and whether that had to be waited for.
async fn noting<T>(work: impl Future<Output = T>) -> (T, bool) {
    let mut work = pin!(work);
    match poll!(work.as_mut()) {
        Poll::Ready(done) => (done, false),
        Poll::Pending => (work.await, true),
    }
}

/// Whether the body that is announced may come.
fn fits(head: &Parts, most: u64) -> Result<(), Refusal> {
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match announced {
        Some(length) if length > most => Err(Refusal::too_large(most)),
        _ => Ok(()),
    }
}

/// Brings the target to its origin form, as upstream reads it. Answers the host, as the client wrote it.
fn target(head: &mut Parts) -> Result<HeaderValue, Refusal> {
    const ODD: &str = "The host cannot be passed on.";
    head.version = Version::HTTP_11;
    let Some(authority) = head.uri.authority() else {
        // Copied: a clone would have to be counted.
        let host = head.headers.get(HOST).and_then(|host| HeaderValue::from_bytes(host.as_bytes()).ok());
        return host.ok_or_else(|| Refusal::malformed(StatusCode::BAD_REQUEST, ODD));
    };
    // Absolute form, or HTTP/2: the target says what Host would (RFC 9112, section 3.2.2).
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::malformed(StatusCode::BAD_REQUEST, ODD))?;
    head.uri = head.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    head.headers.insert(HOST, host.clone());
    Ok(host)
}

/// Says upstream whose request it is, in a way that only this gateway can.
fn sign(worker: &Worker, head: &mut Parts, tenant: Option<&Found>, identity: &Identity) {
    if let (Some(signer), Some(tenant)) = (&worker.shared.signer, tenant) {
        head.headers.insert(CONTEXT, signer.header_at(tenant, identity, worker.unix_seconds()));
    }
}

/// Waits for the answer to a request whose body is on its way. One that takes longer than most is not at work: its seat in the cell is somebody
/// else's, or those who send slowly would have them all. It stays one of its tenant's requests.
async fn patiently<T>(progress: &Progress, permit: &mut Option<Permit>, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        () = tokio::time::sleep(PROMPT) => {}
    }
    if progress.is_awaited.get() {
        progress.is_slow.set(true);
        if let Some(permit) = permit {
            permit.linger();
        }
    }
    answer.await
}

/// An answer that its client kept waiting: it says that the cell is there, and nothing of how long it takes.
fn excuse(outcome: Outcome) -> Outcome {
    if outcome == Outcome::Sound { Outcome::Excused } else { outcome }
}

/// What the outcome says of the cell.
fn judge(outcome: &Result<Response<Body>, forward::Failed>) -> Outcome {
    match outcome {
        Ok(response) => Outcome::of_answer(response.status(), response.headers()),
        Err(failed) => failed.outcome,
    }
}

/// An answer that goes on without anybody working for it: its seat in the cell is somebody else's.
fn lasts_without_work(headers: &http::HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

#[cfg(test)]
mod tests {
    use insula_http::admit::OVERLOADED;

    use super::*;

    #[test]
    fn a_cell_is_judged_by_what_is_its_own() {
        let answer = |status: u16, is_full: bool| {
            let mut response = Response::new(Body::Full(None));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if is_full {
                response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("1"));
            }
            judge(&Ok(response))
        };
        assert_eq!((answer(200, false), answer(500, false), answer(404, true)), (Outcome::Sound, Outcome::Sound, Outcome::Sound));
        assert_eq!(
            (answer(503, true), answer(503, false), answer(504, false)),
            (Outcome::Overloaded, Outcome::Excused, Outcome::Late)
        );
        assert_eq!(judge(&Err(forward::Failed::away())), Outcome::Failed);
    }
}
