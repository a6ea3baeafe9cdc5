//! Hands out tenant contexts: one signature for a tenant and principal in half a minute, however many requests they make.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use insula_catalog::{Found, Route};
use insula_core::token::{self, Claims, ContextKeys, FRESH_SECONDS, GATEWAY, LIFE_SECONDS};
use insula_core::{Clock, Principal, TenantNo, Via};

use super::Identity;
use super::clock::SharedClock;
use super::seen::{Seen, missed};

/// Tokens remembered by default: about 100 MB when all are in use.
const MOST: usize = 1 << 17;

/// Signs tenant contexts. Cheap to share; what it remembers is read without a lock.
pub struct ContextSigner {
    keys: ArcSwap<ContextKeys>,
    issuer: Arc<str>,
    seen: Seen<Signed>,
    clock: SharedClock,
}

/// A token and what it was made for. Holding the route keeps its address from being another's.
struct Signed {
    route: Arc<Route>,
    identity: Identity,
    audience: Option<Box<str>>,
    value: HeaderValue,
}

impl std::fmt::Debug for ContextSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContextSigner({}, ***)", self.issuer)
    }
}

impl ContextSigner {
    /// A gateway's signer.
    #[must_use]
    pub fn gateway(keys: ContextKeys) -> Self {
        Self::new(keys, GATEWAY, MOST)
    }

    /// A signer that remembers `most` tokens.
    #[must_use]
    pub fn new(keys: ContextKeys, issuer: &str, most: usize) -> Self {
        let keys = ArcSwap::from_pointee(keys);
        Self { keys, issuer: issuer.into(), seen: Seen::new(most), clock: SharedClock::default() }
    }

    /// The same by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = SharedClock::of(clock);
        self
    }

    /// Signs with other keys from the next token on; those that are out stay good for their half minute.
    pub fn replace_keys(&self, keys: ContextKeys) {
        self.keys.store(Arc::new(keys));
    }

    /// The value of [`super::CONTEXT`] for a request of `identity` to the applications of the tenant's cell.
    #[must_use]
    pub fn header(&self, route: &Arc<Route>, identity: &Identity) -> HeaderValue {
        self.header_for(route, identity, None)
    }

    /// The same by the caller's time, in Unix seconds: for whoever reads the clock now and then, and not for each request. The tenant's route is not
    /// looked at, unless there is something to sign.
    #[must_use]
    pub fn header_at(&self, tenant: &Found, identity: &Identity, now: i64) -> HeaderValue {
        self.find_or_sign((tenant.no, tenant.route()), identity, None, now)
    }

    /// The same for another audience.
    #[must_use]
    pub fn header_for(&self, route: &Arc<Route>, identity: &Identity, audience: Option<&str>) -> HeaderValue {
        self.find_or_sign((route.no, route), identity, audience, self.clock.now())
    }

    fn find_or_sign(
        &self,
        (no, route): (TenantNo, &Arc<Route>),
        identity: &Identity,
        audience: Option<&str>,
        now: i64,
    ) -> HeaderValue {
        let subject = identity.principal().map(|principal| &*principal.subject);
        let hash = self.seen.hash((no.get(), subject, audience));
        let is_it = |signed: &Signed| {
            Arc::ptr_eq(&signed.route, route) && signed.audience.as_deref() == audience && same(&signed.identity, identity)
        };
        if let Some(value) = self.seen.find(hash, now, |signed| is_it(signed).then(|| signed.value.clone())) {
            return value;
        }
        let value = self.sign(route, identity, audience, now);
        let signed = Signed {
            route: Arc::clone(route),
            identity: identity.clone(),
            audience: audience.map(Into::into),
            value: value.clone(),
        };
        // A predecessor is of the same tenant: its route may have changed since.
        let before = |signed: &Signed| {
            signed.route.id == route.id && signed.audience.as_deref() == audience && same(&signed.identity, identity)
        };
        self.seen.put(hash, now, now + FRESH_SECONDS, signed, before);
        value
    }

    #[cold]
    fn sign(&self, route: &Route, identity: &Identity, audience: Option<&str>, now: i64) -> HeaderValue {
        missed("context");
        let principal = identity.principal();
        let mut claims = Claims {
            iss: Arc::clone(&self.issuer),
            aud: audience.map_or_else(|| token::audience(&route.placement.cell).into(), Arc::from),
            iat: now,
            exp: now + LIFE_SECONDS,
            tid: route.id,
            tno: route.no,
            slug: route.slug.clone(),
            plan: route.plan.name.clone(),
            epoch: route.placement.epoch,
            cell: route.placement.cell.clone(),
            sub: principal.map(|principal| Arc::clone(&principal.subject)),
            idp: principal.and_then(|principal| principal.issuer.clone()),
            via: match identity {
                Identity::Anonymous => None,
                Identity::Session => Some(Via::Session),
                Identity::Principal(principal) => Some(principal.via),
            },
            scope: principal.filter(|principal| !principal.scopes.is_empty()).map(|principal| principal.scopes.join(" ").into()),
        };
        let keys = self.keys.load();
        let mut token = token::sign(keys.at(now), &claims);
        // Nobody would believe it. What is left out are rights: whoever has more than there is room for has fewer, and not none.
        while token.len() > token::LONGEST
            && let Some(scope) = claims.scope.take()
        {
            claims.scope = shorter(&scope, token.len()).map(Arc::from);
            tracing::warn!(tenant = %route.slug, kept = claims.scope.as_ref().map_or(0, |kept| kept.len()), of = scope.len(),
                "somebody has more scopes than a tenant context has room for");
            token = token::sign(keys.at(now), &claims);
        }
        // Letters, digits, hyphens, dots.
        let mut value = HeaderValue::try_from(token).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

/// The first of these words, one less at least, for a token that is `len` bytes long and may be [`token::LONGEST`]; `None` when none is left.
fn shorter(scope: &str, len: usize) -> Option<&str> {
    // The rest of the token stays as it is, so that the first cut is seldom the last, and never far too deep.
    let most = scope.len() * token::LONGEST / len.max(1);
    let end = (0..=most.min(scope.len().saturating_sub(1))).rev().find(|at| scope.as_bytes().get(*at) == Some(&b' '))?;
    Some(&scope[..end])
}

/// Whether two would get the same token: what it says of them is the same.
fn same(a: &Identity, b: &Identity) -> bool {
    let equal =
        |a: &Principal, b: &Principal| a.via == b.via && a.subject == b.subject && a.issuer == b.issuer && a.scopes == b.scopes;
    match (a, b) {
        (Identity::Principal(a), Identity::Principal(b)) => Arc::ptr_eq(a, b) || equal(a, b),
        (a, b) => a == b,
    }
}
