//! `reqwest` with the tenant in every call (feature `reqwest`).

use ::reqwest::{Request, Response};
use http::Extensions;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next, Result};

use crate::outgoing::Services;

/// Puts the tenant, the trace and the request's id into each call, and refuses a call without a tenant or to a stranger.
#[derive(Clone, Debug)]
pub struct Outgoing(Services);

impl Outgoing {
    /// For these services.
    #[must_use]
    pub const fn new(services: Services) -> Self {
        Self(services)
    }
}

/// A client for these services. It follows no redirects: they could lead the tenant's context to a stranger.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client(services: Services) -> ::reqwest::Result<ClientWithMiddleware> {
    let plain = ::reqwest::Client::builder().redirect(::reqwest::redirect::Policy::none()).build()?;
    Ok(ClientBuilder::new(plain).with(Outgoing::new(services)).build())
}

#[async_trait::async_trait]
impl Middleware for Outgoing {
    async fn handle(&self, mut request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let url = request.url();
        let host = url.host_str().unwrap_or_default();
        let headers = self.0.headers(host, url.port_or_known_default()).map_err(Error::middleware)?;
        request.headers_mut().extend(headers);
        next.run(request, extensions).await
    }
}
