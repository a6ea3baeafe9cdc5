//! Answers of the gateway itself, as problems (RFC 9457); to browsers, as pages.
//!
//! Always: one carries the id of the request that it answers, and nothing of the inside.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Response, StatusCode};
use insula_core::Kind;
use insula_http::{Problem, admit, identity, page, resolve};

use crate::body::Body;
use crate::headers::REQUEST_ID;

/// Why a request gets an answer of our own. Boxed: it is the rare case.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Problem>);

impl Refusal {
    /// Of a kind, in words for the client.
    pub(crate) fn of(kind: Kind, detail: &str) -> Self {
        Self(Box::new(Problem::new(kind).detail(detail)))
    }

    /// A request that is not one sentence.
    pub(crate) fn malformed(status: StatusCode, detail: &str) -> Self {
        Self(Box::new(Problem::new(Kind::Invalid).status(status).detail(detail)))
    }

    /// A body above what the plan allows.
    pub(crate) fn too_large(most: u64) -> Self {
        Self(Box::new(resolve::too_large(most)))
    }

    /// Nothing answers behind the gateway.
    pub(crate) fn away() -> Self {
        Self::of(Kind::Unavailable, "The application does not answer.")
    }

    /// As an answer to a request that has this id and accepts this.
    pub(crate) fn into_response(self, request_id: &HeaderValue, accept: Option<&HeaderValue>) -> Response<Body> {
        let problem = self.0.request_id(request_id.to_str().unwrap_or_default());
        let mut response = page::answer(problem, accept).map(Body::full);
        response.headers_mut().insert(REQUEST_ID, request_id.clone());
        response
    }
}

impl From<resolve::Refusal> for Refusal {
    fn from(refusal: resolve::Refusal) -> Self {
        Self(Box::new(refusal.problem()))
    }
}

impl From<admit::Refused> for Refusal {
    fn from(refused: admit::Refused) -> Self {
        Self(Box::new(refused.problem()))
    }
}

impl From<identity::Refusal> for Refusal {
    fn from(refusal: identity::Refusal) -> Self {
        let problem = refusal.problem();
        Self(Box::new(match refusal.challenge() {
            Some(challenge) => problem.header(WWW_AUTHENTICATE, challenge),
            None => problem,
        }))
    }
}
