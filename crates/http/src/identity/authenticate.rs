//! A request's credentials, judged at the edge.
//!
//! Three kinds: an API key of a tenant (`Bearer ik_…`), a token of an issuer that some tenant has named, and everything else, which
//! is the application's own and passes untouched. Always: what claims to be of the first two kinds and does not hold is refused, not
//! taken for the third; a token is good for the tenants whose providers vouch for it and for no other.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use insula_catalog::{ApiKey, Catalog, Freshness, Provider, View};
use insula_core::{Clock, Kind, Principal, TenantId, Via};
use insula_telemetry::{Alarm, security_event};
use serde_json::{Map, Value};

use super::Identity;
use super::clock::SharedClock;
use super::fetch::Fetcher;
use super::issuer::{Issuers, Signature, Source};
use super::jwt::{self, Unproven, claim, texts};
use super::seen::{Seen, missed};
use crate::Problem;

/// What API keys begin with.
const KEY_PREFIX: &str = insula_api::key::PREFIX;
/// A token is judged anew after this, seconds: its issuer may have withdrawn the key.
const JUDGE_AGAIN: i64 = 300;
/// Tenants that one user belongs to, at most.
const MOST_TENANTS: usize = 64;
const LONGEST_SUBJECT: usize = 255;
const MOST_SCOPES: usize = 64;

/// How credentials are judged.
#[derive(Clone, Debug)]
pub struct AuthOptions {
    /// Proven credentials remembered.
    pub remembered: usize,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self { remembered: 1 << 17 }
    }
}

/// Why credentials were refused, in words for whoever sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    kind: Kind,
    reason: &'static str,
    /// The honest do not do this.
    forged: bool,
}

impl Refusal {
    const fn of(kind: Kind, reason: &'static str) -> Self {
        Self { kind, reason, forged: false }
    }

    const fn invalid(reason: &'static str) -> Self {
        Self::of(Kind::Unauthenticated, reason)
    }

    const fn forged(reason: &'static str) -> Self {
        Self { kind: Kind::Unauthenticated, reason, forged: true }
    }

    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// As an answer.
    #[must_use]
    pub fn problem(self) -> Problem {
        match self.kind {
            Kind::Invalid => Problem::new(Kind::Invalid).status(StatusCode::BAD_REQUEST).detail(self.reason),
            kind => Problem::new(kind).detail(self.reason),
        }
    }

    /// `WWW-Authenticate` of a 401 (RFC 6750, section 3).
    #[must_use]
    pub fn challenge(self) -> Option<HeaderValue> {
        let text = format!("Bearer error=\"invalid_token\", error_description=\"{}\"", self.reason);
        (self.kind == Kind::Unauthenticated).then(|| HeaderValue::try_from(text).ok()).flatten()
    }
}

/// Judges credentials by the catalog and by the keys of the issuers that it names.
#[derive(Clone)]
pub struct Authenticator {
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Catalog,
    issuers: Arc<Issuers>,
    seen: Seen<Proven>,
    clock: SharedClock,
}

/// Credentials that hold, with what says so.
struct Proven {
    sum: [u8; 32],
    principal: Arc<Principal>,
    proof: Proof,
}

enum Proof {
    Key(Arc<ApiKey>),
    Providers(Box<[Arc<Provider>]>),
}

impl Proof {
    /// Whether the catalog still says so: what was changed or revoked is another value there, or none.
    fn stands(&self, view: View<'_>) -> bool {
        match self {
            Self::Key(key) => view.api_key(&key.hash).is_some_and(|now| Arc::ptr_eq(now, key)),
            Self::Providers(all) => all.iter().all(|known| view.provider(known.id).is_some_and(|now| Arc::ptr_eq(now, known))),
        }
    }
}

enum Step {
    Refused(Refusal),
    /// The keys of these must be fetched first.
    Fetch(Vec<Arc<Source>>),
}

impl From<Refusal> for Step {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    /// Judges by this catalog.
    #[must_use]
    pub fn new(catalog: Catalog, fetcher: Fetcher, options: &AuthOptions) -> Self {
        Self::by_clock(catalog, fetcher, options, SharedClock::default())
    }

    /// The same by another clock.
    #[must_use]
    pub fn with_clock(catalog: Catalog, fetcher: Fetcher, options: &AuthOptions, clock: impl Clock) -> Self {
        Self::by_clock(catalog, fetcher, options, SharedClock::of(clock))
    }

    fn by_clock(catalog: Catalog, fetcher: Fetcher, options: &AuthOptions, clock: SharedClock) -> Self {
        let issuers = Arc::new(Issuers::new(fetcher, clock.clone()));
        Self { shared: Arc::new(Shared { catalog, issuers, seen: Seen::new(options.remembered), clock }) }
    }

    /// Who sends a request with these headers. Waits, bounded, only when the keys of its issuer are not there yet.
    ///
    /// # Errors
    /// [`Refusal`], after it was reported.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let shared = &*self.shared;
        let outcome = match shared.judge(headers) {
            Err(Step::Fetch(sources)) => {
                Box::pin(futures_util::future::join_all(sources.iter().map(|source| shared.issuers.fetch(source)))).await;
                shared.judge(headers)
            }
            outcome => outcome,
        };
        outcome.map_err(|step| {
            let refusal = match step {
                Step::Refused(refusal) => refusal,
                Step::Fetch(_) => AWAY,
            };
            if refusal.forged {
                security_event!(Alarm::CredentialForged, reason = refusal.reason, "credentials were refused");
            } else {
                tracing::debug!(reason = refusal.reason, "credentials were refused");
            }
            refusal
        })
    }
}

/// What vouched for credentials that were proven: to be looked at again by what goes on after its request was let in.
#[derive(Clone, Debug)]
pub struct Voucher(Vouches);

#[derive(Clone, Debug)]
enum Vouches {
    Key([u8; 32]),
    Issuer { issuer: Box<str>, audiences: Vec<Box<str>> },
}

impl Voucher {
    /// Of the value of an `Authorization` header that was proven; `None` when that is the application's own.
    #[must_use]
    pub fn of(header: &HeaderValue) -> Option<Self> {
        let text = header.to_str().ok().and_then(bearer)?;
        if text.starts_with(KEY_PREFIX) {
            let mut sum = [0; 32];
            sum.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
            return Some(Self(Vouches::Key(sum)));
        }
        let token = Unproven::read(text)?.ok()?;
        let audiences = token.audiences().map(Box::from).collect();
        Some(Self(Vouches::Issuer { issuer: token.issuer()?.into(), audiences }))
    }

    /// Whether it still does, at `now`, for this tenant: the key was neither revoked nor has it expired; the tenant, or the host side, still has the issuer.
    #[must_use]
    pub fn stands(&self, catalog: &Catalog, tenant: Option<TenantId>, now: i64) -> bool {
        catalog.look(|view| match &self.0 {
            Vouches::Key(sum) => view.api_key(sum).is_some_and(|key| key.expires.is_none_or(|end| now < end)),
            Vouches::Issuer { issuer, audiences } => {
                let mut providers = audiences.iter().flat_map(|audience| view.providers(issuer, audience));
                providers.any(|provider| provider.tenant.is_none() || provider.tenant == tenant)
            }
        })
    }

    /// When it ends by itself, Unix seconds: a key that has an expiry. The catalog does not change for that.
    #[must_use]
    pub fn ends(&self, catalog: &Catalog) -> Option<i64> {
        match &self.0 {
            Vouches::Key(sum) => catalog.look(|view| view.api_key(sum).and_then(|key| key.expires)),
            Vouches::Issuer { .. } => None,
        }
    }
}

const AWAY: Refusal = Refusal::of(Kind::Unavailable, "the identity provider of this token does not answer");

impl Shared {
    fn judge(&self, headers: &HeaderMap) -> Result<Identity, Step> {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let header = match (all.next(), all.next()) {
            (None, _) if headers.contains_key(COOKIE) => return Ok(Identity::Session),
            (None, _) => return Ok(Identity::Anonymous),
            (Some(one), None) => one,
            (Some(_), Some(_)) => {
                return Err(Refusal::of(Kind::Invalid, "the request has more than one Authorization header").into());
            }
        };
        // Basic and others, and what is not text, is not of ours.
        let Some(text) = header.to_str().ok().and_then(bearer) else { return Ok(Identity::Session) };
        if text.len() > jwt::LONGEST {
            return Err(Refusal::of(Kind::Invalid, "the token is longer than 8 KiB").into());
        }
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        let (now, hash) = (self.clock.now(), self.seen.hash(sum));
        let is_key = text.starts_with(KEY_PREFIX);
        // Past its bound the catalog may not know of a revocation: a key is nothing without it.
        if is_key && self.catalog.freshness() == Freshness::Expired {
            return Err(Refusal::of(Kind::Unavailable, "keys cannot be checked just now").into());
        }
        self.catalog.look(|view| {
            let known = |proven: &Proven| (proven.sum == sum && proven.proof.stands(view)).then(|| Arc::clone(&proven.principal));
            if let Some(principal) = self.seen.find(hash, now, known) {
                return Ok(Identity::Principal(principal));
            }
            let (principal, proof, until) = if is_key {
                api_key(view, &sum, now)?
            } else {
                match self.token(view, text, now)? {
                    Some(proven) => proven,
                    None => return Ok(Identity::Session),
                }
            };
            missed("credential");
            let principal = Arc::new(principal);
            let proven = Proven { sum, principal: Arc::clone(&principal), proof };
            self.seen.put(hash, now, until, proven, |known| known.sum == sum);
            Ok(Identity::Principal(principal))
        })
    }

    /// A token of an issuer that is known; `None` for what is of nobody that we know.
    fn token(&self, view: View<'_>, text: &str, now: i64) -> Result<Option<(Principal, Proof, i64)>, Step> {
        let Some(token) = Unproven::read(text) else { return Ok(None) };
        let token = token.map_err(Refusal::forged)?;
        let Some(issuer) = token.issuer().filter(|issuer| view.knows_issuer(issuer)) else { return Ok(None) };
        let algorithm = token.algorithm().map_err(Refusal::forged)?;
        let mut providers: Vec<_> = token.audiences().flat_map(|audience| view.providers(issuer, audience)).cloned().collect();
        providers.sort_by_key(|provider| provider.id);
        providers.dedup_by_key(|provider| provider.id);
        providers.truncate(MOST_TENANTS);
        if providers.is_empty() {
            return Err(Refusal::forged("the token is for another audience").into());
        }
        let mut sources: Vec<(Arc<Source>, Signature)> = Vec::new();
        providers.retain(|provider| {
            let source = self.issuers.source(provider);
            if let Some((_, judged)) = sources.iter().find(|(known, _)| Arc::ptr_eq(known, &source)) {
                return *judged == Signature::Good;
            }
            let judged = self.issuers.judge(&source, &token, algorithm);
            let good = judged == Signature::Good;
            sources.push((source, judged));
            good
        });
        if providers.is_empty() {
            return Err(unproven(sources));
        }
        let until = token.good_until(now).map_err(|fault| match fault {
            jwt::EXPIRED => Refusal::invalid(fault),
            fault => Refusal::forged(fault),
        })?;
        let (principal, providers) = principal(view, &token.claims, providers)?;
        Ok(Some((principal, Proof::Providers(providers.into()), until.min(now + JUDGE_AGAIN))))
    }
}

/// The token's text in `Bearer TOKEN`.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, text) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim_matches(' '))
}

fn api_key(view: View<'_>, sum: &[u8; 32], now: i64) -> Result<(Principal, Proof, i64), Refusal> {
    let key = view.api_key(sum).ok_or(Refusal::invalid("the key is unknown or was revoked"))?;
    let until = key.expires.unwrap_or(i64::MAX);
    if now >= until {
        return Err(Refusal::invalid("the key has expired"));
    }
    let principal = Principal {
        subject: format!("key:{}", key.id).into(),
        issuer: None,
        via: Via::ApiKey,
        tenants: [key.tenant].into(),
        scopes: Arc::clone(&key.scopes),
    };
    Ok((principal, Proof::Key(Arc::clone(key)), until))
}

/// Why none of the sources has proven a token: what can be mended comes first.
fn unproven(sources: Vec<(Arc<Source>, Signature)>) -> Step {
    let has = |wanted: Signature| sources.iter().any(|(_, judged)| *judged == wanted);
    if has(Signature::Fetch) {
        return Step::Fetch(
            sources.into_iter().filter(|(_, judged)| *judged == Signature::Fetch).map(|(source, _)| source).collect(),
        );
    }
    Step::Refused(if has(Signature::Bad) {
        Refusal::forged("the token's signature is wrong")
    } else if has(Signature::Away) {
        AWAY
    } else {
        Refusal::invalid("the token's key is not among its issuer's")
    })
}

/// Who a proven token stands for, and which of its providers say so.
fn principal(
    view: View<'_>,
    claims: &Map<String, Value>,
    providers: Vec<Arc<Provider>>,
) -> Result<(Principal, Vec<Arc<Provider>>), Refusal> {
    let mut found: Option<Principal> = None;
    let mut tenants = Vec::new();
    let mut vouching = Vec::new();
    for provider in providers {
        let memberships = memberships(view, claims, &provider);
        if memberships.is_empty() {
            continue;
        }
        let subject = claim(claims, &provider.subject_claim).and_then(Value::as_str);
        let subject = subject.filter(|text| (1..=LONGEST_SUBJECT).contains(&text.len()) && !text.contains(char::is_control));
        let Some(subject) = subject else { return Err(Refusal::invalid("the token does not name its subject")) };
        let scopes = scopes(claims, &provider.scopes_claim);
        match &found {
            // A provider that reads other rights out of the same token does not lend them to the others' tenants.
            Some(first) if *first.subject != *subject || first.scopes != scopes => continue,
            Some(_) => {}
            None => {
                let issuer = Some(Arc::clone(&provider.issuer));
                found = Some(Principal { subject: subject.into(), issuer, via: Via::Oidc, tenants: [].into(), scopes });
            }
        }
        tenants.extend(memberships);
        vouching.push(provider);
    }
    let principal = found.ok_or(Refusal::of(Kind::Denied, "this account belongs to no tenant here"))?;
    tenants.sort_unstable();
    tenants.dedup();
    tenants.truncate(MOST_TENANTS);
    Ok((Principal { tenants: tenants.into(), ..principal }, vouching))
}

fn memberships(view: View<'_>, claims: &Map<String, Value>, provider: &Provider) -> Vec<TenantId> {
    let said = || texts(provider.tenant_claim.as_deref().and_then(|name| claim(claims, name)));
    match (provider.tenant, &provider.tenant_value) {
        (Some(tenant), None) => vec![tenant],
        (Some(tenant), Some(value)) => said().any(|said| *said == **value).then_some(tenant).into_iter().collect(),
        // The host side's own: by slug or id.
        (None, _) => {
            let route = |name: &str| match name.parse() {
                Ok(id) => view.by_id(id),
                Err(_) => view.by_slug(name),
            };
            said().take(MOST_TENANTS).filter_map(route).map(|route| route.id).collect()
        }
    }
}

fn scopes(claims: &Map<String, Value>, name: &str) -> Arc<[Arc<str>]> {
    let words = texts(claim(claims, name)).flat_map(str::split_ascii_whitespace);
    words.filter(|word| word.len() <= 100).take(MOST_SCOPES).map(Arc::from).collect()
}
