//! Calls to other services: the tenant goes along.
//!
//! A call carries the context that the request came with, when that is for the same audience and still good; else one that this
//! process signs with its cell's key, for the audience that is called and for a tenant of its own cell alone (see
//! `docs/decisions/0032-service-to-service-contexts.md`). The trace and the request's id go along.
//! Always: with no tenant in scope there is no call; no context goes to a host that was not named as a service.

use http::{HeaderMap, HeaderName, HeaderValue};
use insula_core::scope::NoTenant;
use insula_core::token::{self, SKEW_SECONDS};
use insula_core::{CellName, Clock as _, Principal, SystemClock, TenantContext, Via, scope};
use insula_http::identity::{CONTEXT, Identity};
use insula_http::request_id;

use crate::handle::Insula;

/// A context with less than this left is not handed on: it would expire on the way, seconds.
const LEAST_LEFT: i64 = 2 * SKEW_SECONDS;

/// Why a call is not made.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    /// Nobody's call.
    #[error(transparent)]
    NoTenant(#[from] NoTenant),
    /// The tenant is no longer known.
    #[error("the tenant of this call is no longer known")]
    Gone,
    /// The context cannot be handed on, and this process cannot sign another.
    #[error("no key of cell {0}: this process cannot speak for its tenants")]
    NoKey(CellName),
    /// A host that is not a service of ours.
    #[error(
        "{0} was not named as a service: `Services::to` names one; use a client of your own for hosts that must not learn of tenants"
    )]
    Stranger(String),
}

/// The services that a client may call, by host, with the audience that each takes contexts for.
#[derive(Clone, Debug)]
pub struct Services {
    insula: Insula,
    hosts: Vec<(String, Option<String>)>,
}

impl Services {
    /// No service yet.
    #[must_use]
    pub fn new(insula: &Insula) -> Self {
        Self { insula: insula.clone(), hosts: Vec::new() }
    }

    /// A service at `host` (`billing.internal`, or `127.0.0.1:9000` for one port alone) that belongs to the tenants' own cell, as
    /// this application does.
    #[must_use]
    pub fn to(mut self, host: impl Into<String>) -> Self {
        self.hosts.push((host.into().to_ascii_lowercase(), None));
        self
    }

    /// A service at `host` that takes contexts for `audience`: `insula-app:CELL`, or what its verifier was given.
    #[must_use]
    pub fn to_audience(mut self, host: impl Into<String>, audience: impl Into<String>) -> Self {
        self.hosts.push((host.into().to_ascii_lowercase(), Some(audience.into())));
        self
    }

    /// What a call to `host` and `port` carries.
    ///
    /// # Errors
    /// [`OutgoingError`]; then the call must not be made.
    pub fn headers(&self, host: &str, port: Option<u16>) -> Result<HeaderMap, OutgoingError> {
        let host = host.to_ascii_lowercase();
        let with_port = port.map(|port| format!("{host}:{port}"));
        let named = self.hosts.iter().find(|(name, _)| *name == host || Some(name) == with_port.as_ref());
        let (_, audience) = named.ok_or(OutgoingError::Stranger(host))?;
        self.insula.outgoing(audience.as_deref())
    }
}

impl Insula {
    /// The headers of a call to a service on behalf of the tenant in scope: its context for `audience` (without one: for the
    /// applications of the tenant's cell), the trace, the request's id. For clients that [`Services`] does not know.
    ///
    /// # Errors
    /// [`OutgoingError`]; then the call must not be made.
    pub fn outgoing(&self, audience: Option<&str>) -> Result<HeaderMap, OutgoingError> {
        let context = scope::current()?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTEXT, self.token(&context, audience)?);
        let mut put = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        put(request_id::HEADER, &context.request_id);
        if let Some(trace) = &context.trace {
            put(HeaderName::from_static("traceparent"), &trace.parent);
            if let Some(state) = &trace.state {
                put(HeaderName::from_static("tracestate"), state);
            }
        }
        Ok(headers)
    }

    fn token(&self, context: &TenantContext, audience: Option<&str>) -> Result<HeaderValue, OutgoingError> {
        let route = self.catalog().by_id(context.tenant).ok_or(OutgoingError::Gone)?.arc();
        let wanted = audience.map_or_else(|| token::audience(&route.placement.cell), str::to_owned);
        if let Some(proof) = &context.proof
            && *proof.claims.aud == *wanted
            && proof.claims.exp - SystemClock.unix_seconds() >= LEAST_LEFT
            && let Ok(mut value) = HeaderValue::from_str(&proof.text)
        {
            value.set_sensitive(true);
            return Ok(value);
        }
        let cell = &route.placement.cell;
        let signer = self.contexts().signer(cell).ok_or_else(|| OutgoingError::NoKey(cell.clone()))?;
        Ok(signer.header_for(&route, &identity(context), Some(&wanted)))
    }
}

/// Who acts, as it was proven to us: what was not is not passed on as if it were.
fn identity(context: &TenantContext) -> Identity {
    let Some(claims) = context.proof.as_ref().map(|proof| &proof.claims) else { return Identity::Anonymous };
    match (&claims.sub, claims.via) {
        (Some(subject), Some(via)) => Identity::Principal(std::sync::Arc::new(Principal {
            subject: subject.clone(),
            issuer: claims.idp.clone(),
            via,
            tenants: [claims.tid].into(),
            scopes: claims.scope.iter().flat_map(|scope| scope.split_ascii_whitespace()).map(Into::into).collect(),
        })),
        (_, Some(Via::Session)) => Identity::Session,
        _ => Identity::Anonymous,
    }
}
