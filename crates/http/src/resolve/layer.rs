//! The layer of an application: each request gets its tenant, or an answer that says why not.
//!
//! Not for: deciding whose request it is ([`Resolver`] does). Always: the context is in the request's extensions and in scope for the
//! handler's whole future; every request leaves one log line ([`crate::observe`]); no panic leaves without an answer.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_LENGTH, HeaderMap};
use http_body_util::Limited;
use insula_catalog::{Catalog, Route};
use insula_core::context::{Proof, Trace};
use insula_core::{Kind, TenantContext, scope};
use insula_telemetry::{Alarm, Senses, security_event, trace as spans};
use tower::{Layer, Service};
use tracing::Instrument;

use crate::identity::{Verified, Verifier, VerifyError};
use crate::observe::{Counted, Observation, timed};
use crate::page;
use crate::problem::{Problem, normalise};
use crate::request_id;
use crate::resolve::{Asked, Resolved, Resolver};

/// Resolves every request to a tenant.
#[derive(Clone)]
pub struct ResolveLayer {
    shared: Arc<Shared>,
    senses: Senses,
}

struct Shared {
    catalog: Catalog,
    resolver: Resolver,
    /// With one, tenants are known by what the gateway signed and by nothing else.
    verifier: Option<Arc<Verifier>>,
    tenantless: Vec<String>,
}

/// Whose request it is, and who acts.
struct Found {
    route: Arc<Route>,
    principal: Option<Arc<str>>,
    /// What the gateway signed, to hand on.
    proof: Option<Arc<Proof>>,
}

impl ResolveLayer {
    /// Resolves against `catalog` by the default sources; `/healthz` and `/readyz` pass without a tenant.
    #[must_use]
    pub fn new(catalog: Catalog) -> Self {
        Self::by(Resolver::default(), catalog)
    }

    /// As [`ResolveLayer::new`], by a resolver of one's own. Requests for the host side pass without a tenant.
    #[must_use]
    pub fn by(resolver: Resolver, catalog: Catalog) -> Self {
        Self::with(resolver, catalog, None)
    }

    /// For an application behind a gateway: each request must carry a tenant context that `verifier` believes, and is for the tenant
    /// that it names. Its host, and whatever else a client wrote, says nothing.
    #[must_use]
    pub fn verified(verifier: Arc<Verifier>, catalog: Catalog) -> Self {
        Self::with(Resolver::default(), catalog, Some(verifier))
    }

    fn with(resolver: Resolver, catalog: Catalog, verifier: Option<Arc<Verifier>>) -> Self {
        let tenantless = vec!["/healthz".to_owned(), "/readyz".to_owned()];
        Self { shared: Arc::new(Shared { catalog, resolver, verifier, tenantless }), senses: Senses::default() }
    }

    /// Tells these of every request.
    #[must_use]
    pub fn watched_by(self, senses: Senses) -> Self {
        Self { senses, ..self }
    }
}

impl<S> Layer<S> for ResolveLayer {
    type Service = Resolve<S>;
    fn layer(&self, inner: S) -> Resolve<S> {
        Resolve { inner, shared: self.shared.clone(), senses: self.senses.clone() }
    }
}

/// What [`ResolveLayer`] makes.
#[derive(Clone)]
pub struct Resolve<S> {
    inner: S,
    shared: Arc<Shared>,
    senses: Senses,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<S> Service<Request> for Resolve<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Answer {
        // The service that was polled ready is the one to call.
        let unready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, unready);
        let (shared, senses) = (self.shared.clone(), self.senses.clone());
        Box::pin(async move { Ok(shared.answer(inner, request, &senses).await) })
    }
}

impl Shared {
    async fn answer<S>(&self, inner: S, mut request: Request, senses: &Senses) -> Response
    where
        S: Service<Request, Response = Response, Error = Infallible> + Send,
        S::Future: Send,
    {
        let id = request_id::of(request.headers());
        let header = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("?"));
        let mut seen = Observation::begin(senses, request.method(), request.uri(), header.clone());
        let spent = seen.spent();
        let span = spans::request(request.headers(), request.method().as_str(), request.uri().path(), &id);
        if let Some(id) = spans::id(&span, request.headers()) {
            seen.trace(id);
        }
        // What is done for this request hangs on its span, also in other processes: the context takes it from here.
        spans::inject(&span, request.headers_mut());

        let accept = request.headers().get(ACCEPT).cloned();
        let mut response = if self.tenantless.iter().any(|path| path == request.uri().path()) {
            guarded(inner, request).await
        } else {
            match self.admit(&mut request, &id, &mut seen).await {
                Ok(None) => timed(guarded(inner, request).instrument(span.clone()), spent).await,
                Ok(Some(context)) => {
                    spans::of_tenant(&span, context.tenant, context.slug.as_str());
                    let mut request = request.map(|body| Body::new(Counted::new(body, Arc::clone(&spent))));
                    request.extensions_mut().insert(Arc::clone(&spent));
                    // Normalised inside the scope, so that the problem can name the request.
                    let work = async { normalise(guarded(inner, limited(request)).await).await };
                    timed(scope::enter(context, work).instrument(span.clone()), spent).await
                }
                Err(problem) => page::answer(problem.request_id(&id), accept.as_ref()).map(Body::from),
            }
        };
        spans::answered(&span, response.status().as_u16());
        response.headers_mut().insert(request_id::HEADER, header);
        seen.answered(response).map(Body::new)
    }

    async fn asked(&self, asked: Asked<'_>) -> Result<Option<Found>, Problem> {
        let Resolved::Tenant { route, .. } = self.resolver.find(&asked, &self.catalog).await? else { return Ok(None) };
        Ok(Some(Found {
            route: route.arc(),
            principal: asked.principal().map(|principal| principal.subject.clone()),
            proof: None,
        }))
    }

    async fn proven(&self, verifier: &Verifier, request: &mut Request) -> Result<Found, Problem> {
        let verified = verifier.verify(request.headers()).await.map_err(|error| match error {
            VerifyError::Absent => Problem::new(error.kind()).detail("This application is reached through its gateway."),
            _ => Problem::new(error.kind()),
        })?;
        let route = self.route_of(&verified).await?;
        let principal = verified.identity.principal().map(|principal| principal.subject.clone());
        verified.identity.extend(request.extensions_mut());
        Ok(Found { route, principal, proof: Some(verified.proof.clone()) })
    }

    /// The route of a proven tenant, at the epoch that the gateway saw or a later one: a gateway that is behind is harmless.
    async fn route_of(&self, verified: &Verified) -> Result<Arc<Route>, Problem> {
        let claims = verified.claims();
        let mut route = self.resolver.find_by_id(claims.tid, &self.catalog).await?;
        if route.placement.epoch < claims.epoch {
            // We are behind: catch up, once and with everybody else who asks at this moment.
            let _ = tokio::time::timeout(CATCH_UP, self.catalog.refresh()).await;
            route = self.resolver.find_by_id(claims.tid, &self.catalog).await?;
        }
        if route.no != claims.tno || (verified.is_of_cell() && route.placement.cell != claims.cell) {
            security_event!(Alarm::ContextRefused, tenant = %claims.tid, "a context does not fit the tenant's place");
            return Err(Problem::new(Kind::Security));
        }
        // Still behind: the gateway is to try again.
        if route.placement.epoch < claims.epoch { Err(Problem::new(Kind::Moved)) } else { Ok(route) }
    }

    /// Puts context, route and body limit into the request, or says why it may not go on. `None` for the host side.
    async fn admit(
        &self,
        request: &mut Request,
        id: &Arc<str>,
        seen: &mut Observation,
    ) -> Result<Option<TenantContext>, Problem> {
        let found = match &self.verifier {
            Some(verifier) => Some(self.proven(verifier, request).await?),
            None => self.asked(Asked::of(request)?).await?,
        };
        let Some(Found { route, principal, proof }) = found else { return Ok(None) };
        seen.is_of(Arc::clone(&route).into());
        if let Some(principal) = &principal {
            seen.principal(principal.clone());
        }
        let limit = route.plan.limits.max_body_bytes;
        if let Some(length) = declared_length(request.headers())
            && length > limit
        {
            return Err(too_large(limit));
        }
        let context = TenantContext {
            tenant: route.id,
            no: route.no,
            slug: route.slug.clone(),
            plan: route.plan.name.clone(),
            principal,
            request_id: id.clone(),
            proof,
            trace: trace(request.headers()),
        };
        request.extensions_mut().insert(context.clone());
        request.extensions_mut().insert(BodyLimit(limit));
        request.extensions_mut().insert(route);
        Ok(Some(context))
    }
}

/// How long a request waits for the catalog to catch up with its gateway.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The trace that a request is part of.
#[must_use]
pub fn trace(headers: &HeaderMap) -> Option<Arc<Trace>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Trace::read(text("traceparent")?, text("tracestate")).map(Arc::new)
}

/// The most bytes that a body of this request may have.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(pub u64);

/// The problem for a body above `limit`.
#[must_use]
pub fn too_large(limit: u64) -> Problem {
    Problem::new(Kind::TooLarge).detail(format!("A body may have {limit} bytes at most."))
}

/// Bodies without a declared length are counted as they come.
fn limited(request: Request) -> Request {
    let limit = request.extensions().get::<BodyLimit>().map_or(0, |limit| limit.0);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    request.map(|body| Body::new(Limited::new(body, limit)))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn guarded<S>(mut inner: S, request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    match AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => {
            tracing::error!(panic = panic_text(&*panic), "a handler panicked");
            Problem::new(Kind::Internal).into_response()
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
