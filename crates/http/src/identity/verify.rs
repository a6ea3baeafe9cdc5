//! What an application believes of the request before it: the tenant context in its header, verified.
//!
//! Always: without a context that holds, there is no tenant, whatever the host name says. A context that the gateway signed is good
//! for any tenant; one that the applications of a cell signed (service to service) is good for tenants of that cell alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName, HeaderValue};
use insula_core::context::Proof;
use insula_core::token::{self, Claims, GATEWAY, KeySet, TokenError};
use insula_core::{CellName, Clock, Kind, Principal};
use insula_telemetry::{Alarm, security_event};

use super::Identity;
use super::clock::SharedClock;
use super::published::Published;
use super::seen::{Seen, missed};

/// The header that carries the context.
pub const CONTEXT: HeaderName = HeaderName::from_static(token::HEADER);

/// Tokens remembered: a tenant's principals of half a minute.
const MOST: usize = 1 << 16;

/// Why a request has no tenant that is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No header: it did not come through a gateway.
    #[error("the request carries no tenant context")]
    Absent,
    /// More than one.
    #[error("the request carries more than one tenant context")]
    Twice,
    /// One that does not hold.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Signed by a cell for a tenant that lives elsewhere.
    #[error("the token's signer may not speak for that tenant")]
    Beyond,
}

impl VerifyError {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Absent | Self::Token(_) => Kind::Unauthenticated,
            Self::Twice | Self::Beyond => Kind::Security,
        }
    }

    /// Reports what the honest do not do.
    fn report(self) {
        match self {
            Self::Token(error) if error.is_innocent() => tracing::info!(%error, "a tenant context was refused"),
            error => security_event!(Alarm::ContextRefused, %error, "a tenant context was refused"),
        }
    }
}

/// A context that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it says, and the token, to hand on.
    pub proof: Arc<Proof>,
    /// Who acts, as the signer has proven or passed on.
    pub identity: Identity,
}

impl Verified {
    /// What it says.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.proof.claims
    }

    /// Whether a cell's application has signed it, and not a gateway.
    #[must_use]
    pub fn is_of_cell(&self) -> bool {
        *self.proof.claims.iss != *GATEWAY
    }
}

/// Verifies contexts for some audiences. What was verified once is remembered until it expires.
pub struct Verifier {
    /// Of the cells that this application serves, in most cases one.
    audiences: ArcSwap<Vec<String>>,
    gateway: Published,
    /// The keys of cells whose applications may call this one.
    cells: ArcSwap<BTreeMap<CellName, KeySet>>,
    seen: Seen<([u8; 32], Arc<Verified>)>,
    clock: SharedClock,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("audiences", &self.audiences).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Verifies what gateways sign for `audience`.
    #[must_use]
    pub fn new(audience: &str, gateway: Published) -> Self {
        Self {
            audiences: ArcSwap::from_pointee(vec![audience.to_owned()]),
            gateway,
            cells: ArcSwap::default(),
            seen: Seen::new(MOST),
            clock: SharedClock::default(),
        }
    }

    /// The same by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = SharedClock::of(clock);
        self
    }

    /// Takes what is for these audiences from now on.
    pub fn serve(&self, audiences: Vec<String>) {
        self.audiences.store(Arc::new(audiences));
    }

    /// Believes the applications of these cells, each for its own tenants.
    pub fn trust_cells(&self, cells: BTreeMap<CellName, KeySet>) {
        self.cells.store(Arc::new(cells));
    }

    /// The context of a request. Waits only when it is signed with a key that was not seen before.
    ///
    /// # Errors
    /// [`VerifyError`], after it was reported.
    pub async fn verify(&self, headers: &HeaderMap) -> Result<Arc<Verified>, VerifyError> {
        self.look(headers).await.inspect_err(|error| error.report())
    }

    async fn look(&self, headers: &HeaderMap) -> Result<Arc<Verified>, VerifyError> {
        let header = single(headers)?;
        match self.check(header) {
            Err(VerifyError::Token(TokenError::UnknownKey)) => {
                self.gateway.ask().await;
                self.check(header)
            }
            checked => checked,
        }
    }

    /// The same without waiting: a key that was published a moment ago is not known then.
    ///
    /// # Errors
    /// [`VerifyError`]; it is not reported.
    pub fn check(&self, header: &HeaderValue) -> Result<Arc<Verified>, VerifyError> {
        let bytes = header.as_bytes();
        if bytes.len() > token::LONGEST {
            return Err(TokenError::Oversized.into());
        }
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
        let (now, hash) = (self.clock.now(), self.seen.hash(sum));
        let known = |(known, verified): &([u8; 32], Arc<Verified>)| (*known == sum).then(|| Arc::clone(verified));
        if let Some(verified) = self.seen.find(hash, now, known) {
            return Ok(verified);
        }
        missed("verified");
        let claims = self.judge(header, now)?;
        let expires = claims.exp + token::SKEW_SECONDS;
        let identity = identity(&claims);
        // It was judged as text.
        let text = header.to_str().unwrap_or_default().into();
        let verified = Arc::new(Verified { identity, proof: Arc::new(Proof { claims, text }) });
        self.seen.put(hash, now, expires, (sum, Arc::clone(&verified)), |(known, _)| *known == sum);
        Ok(verified)
    }

    fn judge(&self, header: &HeaderValue, now: i64) -> Result<Claims, VerifyError> {
        let text = header.to_str().map_err(|_| TokenError::Malformed("not text"))?;
        let (issuer, audience) = token::claimed(text).ok_or(TokenError::Malformed("no issuer or no audience"))?;
        // Of those that are served: what is for none of them is judged against the first, and refused for it.
        let audiences = self.audiences.load();
        let audience = audiences.iter().find(|served| **served == audience).or(audiences.first());
        let audience = audience.ok_or(TokenError::Audience)?;
        let cells = self.cells.load();
        // Each signer is judged by its own keys: a cell that calls itself the gateway has the wrong ones.
        let Some((cell, keys)) = issuer.strip_prefix("insula-app:").and_then(|cell| cells.get_key_value(cell)) else {
            return Ok(token::verify(text, &self.gateway.keys(), GATEWAY, audience, now)?);
        };
        let claims = token::verify(text, keys, &issuer, audience, now)?;
        if claims.cell == *cell { Ok(claims) } else { Err(VerifyError::Beyond) }
    }
}

fn single(headers: &HeaderMap) -> Result<&HeaderValue, VerifyError> {
    let mut all = headers.get_all(CONTEXT).iter();
    match (all.next(), all.next()) {
        (None, _) => Err(VerifyError::Absent),
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(VerifyError::Twice),
    }
}

fn identity(claims: &Claims) -> Identity {
    match (&claims.sub, claims.via) {
        (Some(subject), Some(via)) => Identity::Principal(Arc::new(Principal {
            subject: Arc::clone(subject),
            issuer: claims.idp.clone(),
            via,
            tenants: [claims.tid].into(),
            scopes: claims.scope.iter().flat_map(|scope| scope.split_ascii_whitespace()).map(Arc::from).collect(),
        })),
        (_, Some(_)) => Identity::Session,
        (_, None) => Identity::Anonymous,
    }
}
