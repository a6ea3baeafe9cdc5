//! Sends a request to one of a cell's applications, and again where that is safe.
//!
//! Always: a request that may have been acted on is not sent twice, unless doing it twice is doing it once (RFC 9110, section 9.2.2)
//! and it has no body; what is sent again is a small share of what is sent, so that retries cannot bring down what is struggling.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode};
use insula_catalog::Found;
use insula_core::Kind;
use insula_http::admit::Outcome;

use crate::body::{Body, Fault, Progress, RequestBody};
use crate::refusal::Refusal;
use crate::scratch;
use crate::upstream::{Answer, CellUpstream, Failure, Limit, Link, Source, Streaming, Turn};
use crate::watch::Watch;
use crate::worker::Worker;

/// A request's surroundings.
pub(crate) struct Call<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    /// `None` on the host side.
    pub(crate) tenant: Option<&'a Found>,
    /// Of whoever was proven: what may be taken back while the answer lasts.
    pub(crate) credential: Option<HeaderValue>,
    pub(crate) cell: &'a CellUpstream,
    pub(crate) watch: &'a Arc<Watch>,
    pub(crate) progress: &'a Progress,
    /// Its client sent no more than [`scratch::FIELDS`].
    pub(crate) has_few_fields: bool,
}

/// Why there is no answer, and what that says of the cell.
pub(crate) struct Failed {
    refusal: Refusal,
    pub(crate) outcome: Outcome,
}

impl Failed {
    pub(crate) fn refusal(self) -> Refusal {
        self.refusal
    }

    pub(crate) fn away() -> Self {
        Self { refusal: Refusal::away(), outcome: Outcome::Failed }
    }
}

/// Sends it.
pub(crate) async fn send(call: &Call<'_>, mut request: Request<RequestBody>) -> Result<Response<Body>, Failed> {
    call.cell.budget.earn();
    loop {
        let turn = call.cell.pick().ok_or_else(Failed::away)?;
        let mut link = match turn.endpoint.take_idle() {
            Some(link) => link,
            None => match Box::pin(turn.endpoint.connect()).await {
                Ok(link) => link,
                Err(error) => {
                    tracing::warn!(endpoint = turn.endpoint.authority(), %error, "cannot connect");
                    turn.failed();
                    // Nothing was sent: another one may do.
                    if call.cell.has_others() && call.cell.budget.spend() {
                        continue;
                    }
                    return Err(Failed::away());
                }
            },
        };
        let failure = match link.send(&mut request, &Limit(Some(call.watch))).await {
            Ok(answer) => {
                if call.has_few_fields {
                    scratch::give_back_fields(std::mem::take(request.headers_mut()));
                }
                return deliver(call, turn, answer, link);
            }
            Err(failure) => failure,
        };
        match failure {
            // It had been idle, and the other side closed it: no byte of the request was on it.
            Failure::Unsent if link.is_used => {}
            // The same, noticed a moment later.
            Failure::Broken { is_harmless: true, .. } if link.is_used && call.cell.budget.spend() => {}
            Failure::Unsent if call.cell.has_others() && call.cell.budget.spend() => turn.failed(),
            Failure::Broken { is_harmless: true, .. } if call.cell.has_others() && call.cell.budget.spend() => {}
            failure => return Err(blame(failure, call.progress, turn)),
        }
    }
}

fn deliver(call: &Call<'_>, turn: Turn, answer: Answer, link: Box<Link>) -> Result<Response<Body>, Failed> {
    let streaming =
        |source, turn: Turn, link| Body::Stream(Box::new(Streaming::new(source, link, turn.sound(), Arc::clone(call.watch))));
    Ok(match answer {
        Answer::Whole(response, is_good) => {
            let endpoint = turn.sound();
            if is_good {
                endpoint.give_back(link);
            }
            response.map(|bytes| Body::Full((!bytes.is_empty()).then_some(bytes)))
        }
        Answer::Sized(response) => response.map(|body| streaming(Source::Sized(body), turn, link)),
        // Nobody asked for that; what follows is not HTTP.
        Answer::Spoken(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => return Err(Failed::away()),
        Answer::Spoken(response) => response.map(|body| streaming(Source::Incoming(body), turn, link)),
    })
}

/// Whose fault it is that there is no answer.
pub(crate) fn blame(failure: Failure, progress: &Progress, turn: Turn) -> Failed {
    let (refusal, outcome) = match (progress.fault.get(), failure) {
        (Some(Fault::TooLarge { most }), _) => (Refusal::too_large(most), Outcome::Unknown),
        (Some(Fault::Broken), _) => (Refusal::malformed(StatusCode::BAD_REQUEST, "The body broke off."), Outcome::Unknown),
        (None, Failure::Timeout) if progress.is_coming.get() => {
            (Refusal::malformed(StatusCode::REQUEST_TIMEOUT, "The body did not come in time."), Outcome::Unknown)
        }
        // What this one tenant needs may hang: whether the application does, the checks of its health find out.
        (None, Failure::Timeout) => (Refusal::of(Kind::Timeout, "The application did not answer in time."), Outcome::Late),
        (None, Failure::Unsent) => {
            turn.failed();
            (Refusal::away(), Outcome::Failed)
        }
        // It was there and took the request, which may be what broke it: no reason to take it from other tenants. One that is gone cannot
        // be connected to.
        (None, Failure::Broken { error, .. }) => {
            tracing::warn!(endpoint = turn.endpoint.authority(), %error, "an application broke off");
            (Refusal::of(Kind::Unavailable, "The application broke off."), Outcome::Late)
        }
    };
    Failed { refusal, outcome }
}
