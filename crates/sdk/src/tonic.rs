//! gRPC with the tenant in every call, both ways (feature `tonic`).
//!
//! A server that is built on axum's router (`Routes::into_axum_router`) can have [`crate::Insula::layer`] instead, which also puts the
//! tenant in scope, and [`refusal`] around it; with [`Incoming`] a handler does so itself: `scope::enter(insula::tonic::context(&request)?, work)`.
//! What a stream tells after its handler has answered is no longer in scope either way: have it made by a task of `insula::spawn`.

use ::tonic::metadata::MetadataMap;
use ::tonic::service::Interceptor;
use ::tonic::{Code, Request, Status};
use axum::response::Response;
use http::StatusCode;
use insula_core::{Kind, TenantContext, TenantState};
use insula_http::identity::CONTEXT;
use insula_http::request_id;

use crate::handle::Insula;

/// Puts the tenant, the trace and the request's id into each call; without a tenant there is no call.
#[derive(Clone, Debug)]
pub struct Outgoing {
    insula: Insula,
    audience: Option<String>,
}

impl Outgoing {
    /// For a service of the tenants' own cell.
    #[must_use]
    pub fn new(insula: &Insula) -> Self {
        Self { insula: insula.clone(), audience: None }
    }

    /// For a service that takes contexts for `audience`.
    #[must_use]
    pub fn to_audience(insula: &Insula, audience: impl Into<String>) -> Self {
        Self { insula: insula.clone(), audience: Some(audience.into()) }
    }
}

impl Interceptor for Outgoing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = self.insula.outgoing(self.audience.as_deref());
        let headers = headers.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let mut all = std::mem::take(request.metadata_mut()).into_headers();
        all.extend(headers);
        *request.metadata_mut() = MetadataMap::from_headers(all);
        Ok(request)
    }
}

/// Believes the context of each call, or refuses it: the handler finds it by [`context`].
#[derive(Clone, Debug)]
pub struct Incoming {
    insula: Insula,
}

impl Incoming {
    /// By what the handle verifies with.
    #[must_use]
    pub const fn new(insula: Insula) -> Self {
        Self { insula }
    }
}

impl Interceptor for Incoming {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata().clone().into_headers();
        let refused = || Status::unauthenticated("no tenant context that holds");
        let verifier = self.insula.contexts().verifier().ok_or_else(|| Status::failed_precondition("no JWKS is configured"))?;
        let mut values = headers.get_all(CONTEXT).iter();
        let (Some(header), None) = (values.next(), values.next()) else { return Err(refused()) };
        let verified = verifier.check(header).map_err(|_| refused())?;
        let route = self.insula.catalog().by_id(verified.claims().tid).ok_or_else(refused)?;
        if route.no != verified.claims().tno || (verified.is_of_cell() && route.placement.cell != verified.claims().cell) {
            return Err(Status::permission_denied(Kind::Security.title()));
        }
        if route.state() != TenantState::Active {
            return Err(Status::permission_denied(Kind::Suspended.title()));
        }
        let context = TenantContext {
            tenant: route.id,
            no: route.no,
            slug: route.slug.clone(),
            plan: route.plan.name.clone(),
            principal: verified.identity.principal().map(|principal| principal.subject.clone()),
            request_id: request_id::of(&headers),
            proof: Some(verified.proof.clone()),
            trace: insula_http::resolve::trace(&headers),
        };
        verified.identity.extend(request.extensions_mut());
        request.extensions_mut().insert(context);
        Ok(request)
    }
}

/// The context of a call that [`Incoming`] has let through.
///
/// # Errors
/// `UNAUTHENTICATED` when it did not.
#[allow(clippy::result_large_err, reason = "tonic's own error")]
pub fn context<T>(request: &Request<T>) -> Result<TenantContext, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::unauthenticated("no tenant"))
}

/// What the layer refuses over HTTP, as gRPC's clients read it; they take a body of JSON for a broken message. Outermost:
/// `router.layer(insula.layer()).layer(axum::middleware::map_response(insula::tonic::refusal))`.
#[allow(clippy::unused_async, reason = "axum's map_response takes async functions alone")]
pub async fn refusal(response: Response) -> Response {
    let code = match response.status() {
        status if status.is_success() => return response,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    };
    let mut refused = Status::new(code, response.status().canonical_reason().unwrap_or_default()).into_http();
    // When to come back, and whose trouble it is.
    for (name, value) in response.headers() {
        if *name == http::header::RETRY_AFTER || name.as_str().starts_with("insula-") || name.as_str() == "x-request-id" {
            refused.headers_mut().insert(name, value.clone());
        }
    }
    refused
}
