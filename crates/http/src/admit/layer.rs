//! Admission as a tower layer: behind it, a request is at work with a permit that lasts until its answer's last byte.
//!
//! Reads the route that [`crate::ResolveLayer`] left in the request; what has none (health checks, the host side) passes. Always: an answer's
//! head comes within the plan's time, or 504 does.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use insula_catalog::Route;
use insula_core::Kind;
use tower::{Layer, Service};

use super::{Admission, OVERLOADED, Outcome, Permit, Reading, Refused, Why};
use crate::observe::Spent;
use crate::problem::Problem;

/// The time that a request's body has before its client is called slow.
const PROMPT: Duration = Duration::from_secs(1);

/// Puts [`Admission`] before a service.
#[derive(Clone, Debug)]
pub struct AdmitLayer {
    admission: Admission,
}

impl AdmitLayer {
    /// Admits by `admission`.
    #[must_use]
    pub const fn new(admission: Admission) -> Self {
        Self { admission }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;
    fn layer(&self, inner: S) -> Admit<S> {
        Admit { inner, admission: self.admission.clone() }
    }
}

/// What [`AdmitLayer`] makes.
#[derive(Clone, Debug)]
pub struct Admit<S> {
    inner: S,
    admission: Admission,
}

type Answer<B, E> = Pin<Box<dyn Future<Output = Result<Response<Held<B>>, E>> + Send>>;

impl<S, Q, B> Service<Request<Q>> for Admit<S>
where
    S: Service<Request<Q>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    Q: Send + 'static,
    B: From<Bytes>,
{
    type Response = Response<Held<B>>;
    type Error = S::Error;
    type Future = Answer<B, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        // The service that was polled ready is the one to call.
        let unready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, unready);
        let admission = self.admission.clone();
        Box::pin(async move {
            let Some(route) = request.extensions().get::<Arc<Route>>().cloned() else {
                return inner.call(request).await.map(|response| response.map(|body| Held { body, permit: None }));
            };
            let class = admission.classes().of(request.method(), request.uri().path());
            let mut permit = match admission.admit(&route, class).await {
                Ok(permit) => permit,
                Err(refused) => return Ok(answer(&refused)),
            };
            let limit = Duration::from_millis(route.plan.limits.request_timeout_ms.into());
            // The others have no body.
            let spent = if request.method().is_safe() { None } else { request.extensions().get::<Arc<Spent>>().cloned() };
            let mut slow = false;
            let answer = inner.call(request);
            let answer = async {
                let mut answer = pin!(answer);
                if let Some(spent) = spent {
                    tokio::select! {
                        biased;
                        answer = &mut answer => return answer,
                        () = tokio::time::sleep(PROMPT) => {}
                    }
                    // Who waits for a client is not at work: its seat is somebody else's, or those who send slowly would have them all.
                    if spent.is_coming.load(Ordering::Relaxed) {
                        slow = true;
                        permit.linger();
                    }
                }
                answer.await
            };
            let Ok(response) = tokio::time::timeout(limit, answer).await else {
                permit.finish(Outcome::Late);
                let problem = Problem::new(Kind::Timeout).detail(format!("The plan allows {} ms.", limit.as_millis()));
                return Ok(problem.into_bytes().map(|body| Held { body: body.into(), permit: None }));
            };
            let response = response?;
            permit.finish(match Outcome::of_answer(response.status(), response.headers()) {
                Outcome::Sound if slow => Outcome::Excused,
                outcome => outcome,
            });
            if lingers(&response) {
                permit.linger();
            }
            Ok(response.map(|body| Held::new(body, permit)))
        })
    }
}

/// What a refused request is told, and the gateway before us with it: a cell that is full wants less.
fn answer<B: From<Bytes>>(refused: &Refused) -> Response<Held<B>> {
    let problem = refused.problem();
    let problem = if refused.why == Why::Full { problem.header(OVERLOADED, YES) } else { problem };
    problem.into_bytes().map(|body| Held { body: body.into(), permit: None })
}

const YES: HeaderValue = HeaderValue::from_static("1");

/// Whether an answer lasts without being work.
fn lingers<B>(response: &Response<B>) -> bool {
    let events = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    events || response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// A body that holds a permit until it is dropped.
#[derive(Debug)]
pub struct Held<B> {
    body: B,
    permit: Option<Reading>,
}

impl<B> Held<B> {
    /// `body`, with the permit under which it is made.
    #[must_use]
    pub const fn new(body: B, permit: Permit) -> Self {
        Self { body, permit: Some(Reading::new(permit)) }
    }
}

impl<B: http_body::Body + Unpin> http_body::Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        if let Some(permit) = &self.permit {
            permit.asked();
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(permit) = &mut self.permit {
                    permit.handed(frame.data_ref().map_or(0, bytes::Buf::remaining));
                }
            }
            Poll::Ready(None | Some(Err(_))) => self.permit = None,
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl From<Held<Self>> for axum::body::Body {
    fn from(held: Held<Self>) -> Self {
        // Nothing to hold: the body as it is.
        if held.permit.is_none() { held.body } else { Self::new(held.boxed_unsync()) }
    }
}
