//! The authenticator as a tower layer: before resolution, so that a principal's own tenants come first.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use http::Request;
use http::header::WWW_AUTHENTICATE;
use tower::{Layer, Service};

use super::authenticate::{Authenticator, Refusal};
use crate::request_id;

/// Puts the [`super::Identity`], and the [`insula_core::Principal`] when there is one, into each request's extensions, or refuses it.
#[derive(Clone, Debug)]
pub struct AuthenticateLayer {
    authenticator: Authenticator,
}

impl AuthenticateLayer {
    /// Judges by `authenticator`.
    #[must_use]
    pub const fn new(authenticator: Authenticator) -> Self {
        Self { authenticator }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;
    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, authenticator: self.authenticator.clone() }
    }
}

/// What [`AuthenticateLayer`] makes.
#[derive(Clone, Debug)]
pub struct Authenticate<S> {
    inner: S,
    authenticator: Authenticator,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response, E>> + Send>>;

impl<S, B> Service<Request<B>> for Authenticate<S>
where
    S: Service<Request<B>, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one to call.
        let unready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, unready);
        let authenticator = self.authenticator.clone();
        Box::pin(async move {
            match authenticator.authenticate(request.headers()).await {
                Ok(identity) => {
                    identity.extend(request.extensions_mut());
                    inner.call(request).await
                }
                Err(refusal) => Ok(answer(refusal, &request_id::of(request.headers()))),
            }
        })
    }
}

fn answer(refusal: Refusal, request_id: &str) -> Response {
    let mut response = refusal.problem().request_id(request_id).into_response();
    if let Some(challenge) = refusal.challenge() {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}
