//! The keys of identity providers, fetched off the hot path and kept.
//!
//! Always: one fetch at a time for each source, and no more often than is stated here, whatever tokens come; an issuer that is down
//! or slow is the trouble of its own tokens; keys of before stay good for a day while it is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use insula_catalog::Provider;

use super::clock::SharedClock;
use super::fetch::Fetcher;
use super::jwt::{Algorithm, PublicKey, Unproven};

/// Keys older than this are fetched anew, beside the work; seconds.
const RENEW: i64 = 600;
/// Keys older than this are no longer believed, seconds.
const TOO_OLD: i64 = 24 * 3600;
/// A token with an unknown key id makes us look for it no more often, seconds.
const LOOK_AGAIN: i64 = 10;
/// The longest pause between two tries at an issuer that does not answer, seconds.
const LONGEST_PAUSE: i64 = 30;
/// Sources kept.
const MOST: usize = 10_000;

/// Where a provider's keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    issuer: Arc<str>,
    jwks_url: Option<Arc<str>>,
}

/// The keys of one place.
#[derive(Debug)]
pub(super) struct Source {
    place: Place,
    keys: ArcSwapOption<Keys>,
    /// One fetch at a time.
    turn: tokio::sync::Mutex<()>,
    /// Fetches that have ended.
    rounds: AtomicU32,
    /// Not before.
    next_try: AtomicI64,
    failures: AtomicU32,
    /// A fetch beside the work is on its way.
    renewing: AtomicBool,
}

#[derive(Debug)]
struct Keys {
    keys: Vec<PublicKey>,
    fetched: i64,
}

/// What is known of a token's signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signature {
    /// One of the keys has made it.
    Good,
    /// None of them has.
    Bad,
    /// No such key, and the issuer was asked a moment ago.
    UnknownKey,
    /// Fetch the keys, then ask again.
    Fetch,
    /// The issuer does not answer.
    Away,
}

/// All sources that were asked for.
#[derive(Debug)]
pub(super) struct Issuers {
    sources: RwLock<HashMap<Place, Arc<Source>>>,
    fetcher: Fetcher,
    clock: SharedClock,
}

impl Issuers {
    pub(super) fn new(fetcher: Fetcher, clock: SharedClock) -> Self {
        Self { sources: RwLock::default(), fetcher, clock }
    }

    pub(super) fn source(&self, provider: &Provider) -> Arc<Source> {
        let place = Place { issuer: Arc::clone(&provider.issuer), jwks_url: provider.jwks_url.clone() };
        if let Some(source) = self.sources.read().unwrap_or_else(PoisonError::into_inner).get(&place) {
            return Arc::clone(source);
        }
        let mut sources = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= MOST {
            // Those in use come back at their next token.
            sources.clear();
        }
        Arc::clone(sources.entry(place.clone()).or_insert_with(|| Arc::new(Source::new(place))))
    }

    /// Judges a signature by the keys at hand, and has old keys renewed beside the work.
    pub(super) fn judge(self: &Arc<Self>, source: &Arc<Source>, token: &Unproven<'_>, algorithm: Algorithm) -> Signature {
        let now = self.clock.now();
        let may_try = now >= source.next_try.load(Ordering::Acquire);
        let keys = source.keys.load();
        let Some(keys) = keys.as_deref().filter(|keys| now - keys.fetched < TOO_OLD) else {
            return if may_try { Signature::Fetch } else { Signature::Away };
        };
        if now - keys.fetched >= RENEW && may_try {
            self.renew(source);
        }
        let mut fitting = keys.keys.iter().filter(|key| key.fits(token.kid(), algorithm));
        let Some(key) = fitting.next() else {
            let recent = now - keys.fetched < LOOK_AGAIN;
            return match (recent, may_try) {
                (false, true) => Signature::Fetch,
                (false, false) => Signature::Away,
                (true, _) => Signature::UnknownKey,
            };
        };
        // Without a key id there must be no choice (OpenID Connect Core, section 10.1).
        let ambiguous = token.kid().is_none() && fitting.next().is_some();
        if !ambiguous && token.is_signed_by(key, algorithm) { Signature::Good } else { Signature::Bad }
    }

    fn renew(self: &Arc<Self>, source: &Arc<Source>) {
        if !source.renewing.swap(true, Ordering::AcqRel) {
            let (issuers, source) = (Arc::clone(self), Arc::clone(source));
            tokio::spawn(async move {
                issuers.fetch(&source).await;
                source.renewing.store(false, Ordering::Release);
            });
        }
    }

    /// Fetches the keys; whoever asks while that goes on waits for the same fetch.
    pub(super) async fn fetch(&self, source: &Source) {
        let before = source.rounds.load(Ordering::Acquire);
        let _turn = source.turn.lock().await;
        if source.rounds.load(Ordering::Acquire) != before {
            return;
        }
        let fetched = source.get(&self.fetcher).await;
        let now = self.clock.now();
        match fetched {
            Ok(keys) => {
                source.failures.store(0, Ordering::Release);
                source.next_try.store(now, Ordering::Release);
                source.keys.store(Some(Arc::new(Keys { keys, fetched: now })));
            }
            Err(error) => {
                let failures = source.failures.fetch_add(1, Ordering::AcqRel).min(5);
                source.next_try.store(now + (1 << failures).min(LONGEST_PAUSE), Ordering::Release);
                tracing::warn!(issuer = %source.place.issuer, error, "the keys of an identity provider cannot be had");
            }
        }
        source.rounds.fetch_add(1, Ordering::AcqRel);
    }
}

impl Source {
    fn new(place: Place) -> Self {
        Self {
            place,
            keys: ArcSwapOption::empty(),
            turn: tokio::sync::Mutex::new(()),
            rounds: AtomicU32::new(0),
            next_try: AtomicI64::new(i64::MIN),
            failures: AtomicU32::new(0),
            renewing: AtomicBool::new(false),
        }
    }

    async fn get(&self, fetcher: &Fetcher) -> Result<Vec<PublicKey>, String> {
        let url = match &self.place.jwks_url {
            Some(url) => url.to_string(),
            None => self.discover(fetcher).await?,
        };
        let body = fetcher.get(&url).await.map_err(|error| error.to_string())?;
        let keys = PublicKey::read_all(&body).map_err(|fault| format!("{url}: {fault}"))?;
        if keys.is_empty() { Err(format!("{url} has no key that signs")) } else { Ok(keys) }
    }

    /// OpenID Connect Discovery 1.0, section 4: the document must be of the very issuer that was asked for.
    async fn discover(&self, fetcher: &Fetcher) -> Result<String, String> {
        #[derive(serde::Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let url = format!("{}/.well-known/openid-configuration", self.place.issuer.trim_end_matches('/'));
        let body = fetcher.get(&url).await.map_err(|error| error.to_string())?;
        let document: Document = serde_json::from_slice(&body).map_err(|_| format!("{url} is not a discovery document"))?;
        if document.issuer != *self.place.issuer {
            return Err(format!("{url} is of another issuer"));
        }
        if !may_lead(&self.place.issuer, &document.jwks_uri) {
            return Err(format!("{url} leads from https to {}", document.jwks_uri));
        }
        Ok(document.jwks_uri)
    }
}

/// Who answers from elsewhere does not send us to what this machine says to itself over plain HTTP; and its keys are no less safe on their way
/// than its name was (OpenID Connect Discovery 1.0, section 3: `jwks_uri` is an https URL).
fn may_lead(issuer: &str, to: &str) -> bool {
    let is_safe = |text: &str| url::Url::parse(text).is_ok_and(|url| url.scheme() == "https");
    !is_safe(issuer) || is_safe(to)
}

#[cfg(test)]
mod tests {
    use super::may_lead;

    #[test]
    fn an_issuer_elsewhere_does_not_lead_to_this_machine() {
        for to in ["http://127.0.0.1:9090/metrics", "http://localhost/", "HTTP://[::1]/", "file:///etc/passwd", "nonsense"] {
            assert!(!may_lead("https://id.example", to), "{to}");
        }
        assert!(may_lead("https://id.example", "https://keys.example/jwks"));
        assert!(may_lead("http://127.0.0.1:4000", "http://127.0.0.1:4000/jwks"));
        assert!(may_lead("http://localhost:4000", "https://keys.example/jwks"));
    }
}
