//! Who is it? Credentials at the edge against issuers that really answer, contexts behind it, and everything that is tried against both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{digest, hmac, rsa};
use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{ApiKey, Catalog, Freshness, Options, Provider};
use insula_core::{Clock, KeyId, Kind, Principal, ProviderId, TenantId, Via};
use insula_http::identity::{AuthOptions, Authenticator, Fetcher, Identity, Refusal};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) const NOW: i64 = 1_800_000_000;

/// A clock that stands still until it is set.
#[derive(Clone)]
pub(crate) struct Stopped(pub(crate) Arc<AtomicI64>);

impl Stopped {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(NOW)))
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for Stopped {
    fn unix_seconds(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A key of an issuer, as tokens are signed with it.
pub(crate) enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Key {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap())
    }

    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), bytes, &mut signature).unwrap();
                signature
            }
            Self::Ec(key) => key.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(bytes).as_ref().to_vec(),
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(key) => {
                // RFC 8017, A.1.1: a sequence of two integers, of 257 and 3 bytes for a key of 2048 bits.
                let der = key.public_key().as_ref();
                let (n, e) = (&der[der.len() - 261..der.len() - 5], &der[der.len() - 3..]);
                json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": text(n), "e": text(e)})
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Self::Ed(key) => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(key.public_key().as_ref())}),
        }
    }
}

/// An issuer that answers, until it is told not to.
struct Issuer {
    url: String,
    keys: Vec<(String, Key)>,
    published: Arc<std::sync::Mutex<Value>>,
    asked: Arc<AtomicU32>,
    down: Arc<AtomicBool>,
}

impl Issuer {
    async fn start(keys: Vec<(&str, Key)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys: Vec<_> = keys.into_iter().map(|(kid, key)| (kid.to_owned(), key)).collect();
        let published = json!({"keys": keys.iter().map(|(kid, key)| key.jwk(kid)).collect::<Vec<_>>()});
        let published = Arc::new(std::sync::Mutex::new(published));
        let (asked, down) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let answer = {
            let (published, asked, down) = (published.clone(), asked.clone(), down.clone());
            move || {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = published.lock().unwrap().to_string();
                let status = if down.load(Ordering::SeqCst) { 503 } else { 200 };
                async move { (http::StatusCode::from_u16(status).unwrap(), answer) }
            }
        };
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
        let app = Router::new()
            .route("/keys", get(answer))
            .route("/.well-known/openid-configuration", get(async move || discovery))
            .route("/away", get(async || axum::response::Redirect::temporary("/keys")));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, keys, published, asked, down }
    }

    fn provider(&self, tenant: Option<TenantId>) -> Provider {
        Provider {
            id: ProviderId::new(),
            tenant,
            issuer: self.url.as_str().into(),
            audience: "docs".into(),
            jwks_url: None,
            subject_claim: "sub".into(),
            scopes_claim: "scope".into(),
            tenant_claim: tenant.is_none().then(|| "tenants".into()),
            tenant_value: None,
        }
    }

    fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": "docs", "sub": "alice", "scope": "read write", "iat": NOW, "exp": NOW + 600})
    }

    /// A token of the n-th key, with claims and header members replaced.
    fn token(&self, n: usize, claims: &Value, header: &Value) -> String {
        let (kid, key) = &self.keys[n];
        let header = merged(json!({"alg": key.alg(), "kid": kid, "typ": "JWT"}), header);
        signed(&header, &merged(self.claims(), claims), |bytes| key.sign(bytes))
    }

    fn plain(&self, n: usize) -> String {
        self.token(n, &json!({}), &json!({}))
    }
}

fn merged(mut base: Value, change: &Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(base.as_object_mut().unwrap().remove(name)),
            value => base[name] = value.clone(),
        }
    }
    base
}

fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    raw(&header.to_string(), &claims.to_string(), sign)
}

fn raw(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

struct Edge {
    source: FakeSource,
    catalog: Catalog,
    authenticator: Authenticator,
    clock: Stopped,
    acme: TenantId,
    globex: TenantId,
}

impl Edge {
    async fn with(providers: impl FnOnce(TenantId, TenantId) -> Vec<Provider>) -> Self {
        let source = FakeSource::new();
        let tenants = ["acme", "globex"].map(|slug| fake::tenant(slug, 1, "bronze", "main").unwrap());
        let [acme, globex] = [tenants[0].id, tenants[1].id];
        source.change(|content| {
            content.put_plan(fake::plan("bronze").unwrap());
            content.put_cell(fake::cell("main", "127.0.0.1", 1).unwrap());
            content.put_database(fake::database("main", "insula_pool", 0).unwrap());
            tenants.into_iter().for_each(|tenant| content.put_tenant(tenant));
            providers(acme, globex).into_iter().for_each(|provider| content.put_provider(provider));
        });
        let catalog = Catalog::start(source.clone(), Options::default());
        catalog.ready().await;
        let clock = Stopped::new();
        let fetcher = Fetcher::new().unwrap();
        let authenticator = Authenticator::with_clock(catalog.clone(), fetcher, &AuthOptions::default(), clock.clone());
        Self { source, catalog, authenticator, clock, acme, globex }
    }

    async fn judge(&self, token: &str) -> Result<Identity, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        self.authenticator.authenticate(&headers).await
    }

    async fn principal(&self, token: &str) -> Arc<Principal> {
        match self.judge(token).await {
            Ok(Identity::Principal(principal)) => principal,
            other => panic!("not proven: {other:?}"),
        }
    }

    async fn refused(&self, token: &str) -> (Kind, String) {
        match self.judge(token).await {
            Err(refusal) => (refusal.kind(), refusal.to_string()),
            Ok(identity) => panic!("believed: {identity:?}"),
        }
    }

    async fn change(&self, change: impl FnOnce(&mut fake::Content)) {
        self.source.change(change);
        self.catalog.refresh().await.unwrap();
    }
}

async fn one_issuer() -> (Issuer, Edge) {
    let issuer = Issuer::start(vec![("rsa", Key::rsa()), ("ec", Key::ec()), ("ed", Key::ed())]).await;
    let edge = Edge::with(|acme, _| vec![issuer.provider(Some(acme))]).await;
    (issuer, edge)
}

#[tokio::test]
async fn a_token_of_the_tenants_issuer_says_who_it_is() {
    let (issuer, edge) = one_issuer().await;
    for n in 0..3 {
        let principal = edge.principal(&issuer.plain(n)).await;
        assert_eq!((&*principal.subject, principal.via, &*principal.tenants), ("alice", Via::Oidc, &[edge.acme][..]));
        assert_eq!(principal.scopes.iter().map(|s| &**s).collect::<Vec<_>>(), ["read", "write"]);
        let again = edge.principal(&issuer.plain(n)).await;
        assert_eq!(again.subject, principal.subject);
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "keys are fetched once");
    let listed = json!({"aud": ["other", "docs"], "scope": ["read", "write all"], "nbf": NOW - 1});
    assert_eq!(edge.principal(&issuer.token(0, &listed, &json!({"typ": "at+jwt"}))).await.scopes.len(), 3);
}

#[tokio::test]
async fn the_applications_own_credentials_pass_untouched() {
    let (issuer, edge) = one_issuer().await;
    let foreign = issuer.token(0, &json!({"iss": "https://app.example"}), &json!({}));
    let shared = signed(&json!({"alg": "HS256"}), &json!({"sub": "x"}), |_| vec![1; 32]);
    for token in ["opaque", "a.b.c", "s3cr3t.session.token", &foreign, &shared, "a.b.c.d.e"] {
        assert_eq!(edge.judge(token).await, Ok(Identity::Session), "{token}");
    }
    let judge = async |name: &'static str, value: &'static str| {
        edge.authenticator.authenticate(&HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])).await
    };
    assert_eq!(judge("authorization", "Basic YTpi").await, Ok(Identity::Session));
    assert_eq!(judge("cookie", "session=x").await, Ok(Identity::Session));
    assert_eq!(judge("accept", "x").await, Ok(Identity::Anonymous));
    let mut twice = HeaderMap::new();
    twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
    twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
    assert_eq!(edge.authenticator.authenticate(&twice).await.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn no_attack_of_the_book_is_believed() {
    let (issuer, edge) = one_issuer().await;
    let stranger = Key::rsa();
    let (header, claims) = (json!({"alg": "RS256", "kid": "rsa", "typ": "JWT"}), issuer.claims());
    let public = match &issuer.keys[0].1 {
        Key::Rsa(key) => key.public_key().as_ref().to_vec(),
        _ => unreachable!(),
    };
    let hs256 = |bytes: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), bytes).as_ref().to_vec();
    let none = format!("{}.", raw(&json!({"alg": "none"}).to_string(), &claims.to_string(), |_| vec![]).trim_end_matches('.'));
    let twice = claims.to_string().replacen('{', r#"{"sub":"admin","#, 1);
    let sign = |bytes: &[u8]| issuer.keys[0].1.sign(bytes);
    let own_key = json!({"jwk": stranger.jwk("rsa"), "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/x"});
    let attacks = [
        ("forged by a stranger", signed(&header, &claims, |b| stranger.sign(b))),
        ("signed by its own embedded key", signed(&merged(header.clone(), &own_key), &claims, |b| stranger.sign(b))),
        ("alg none", none),
        ("alg None, with a signature", signed(&json!({"alg": "None", "kid": "rsa"}), &claims, sign)),
        ("HS256 with the public key", signed(&json!({"alg": "HS256", "kid": "rsa"}), &claims, hs256)),
        ("another key's id", signed(&json!({"alg": "RS256", "kid": "ed"}), &claims, sign)),
        ("another algorithm than the key's", signed(&json!({"alg": "PS256", "kid": "rsa"}), &claims, sign)),
        ("an injected key id", signed(&json!({"alg": "RS256", "kid": "../../keys' OR 1=1 --"}), &claims, sign)),
        ("a key id that is a list", signed(&json!({"alg": "RS256", "kid": ["rsa"]}), &claims, sign)),
        ("an endless key id", signed(&json!({"alg": "RS256", "kid": "x".repeat(2000)}), &claims, sign)),
        ("critical extensions", signed(&merged(header.clone(), &json!({"crit": ["b64"], "b64": false})), &claims, sign)),
        ("a log-out token", issuer.token(0, &json!({}), &json!({"typ": "logout+jwt"}))),
        ("a claim twice", raw(&header.to_string(), &twice, sign)),
        ("expired", issuer.token(0, &json!({"exp": NOW - 31}), &json!({}))),
        ("never expires", issuer.token(0, &json!({"exp": null}), &json!({}))),
        ("expires in words", issuer.token(0, &json!({"exp": "tomorrow"}), &json!({}))),
        ("not yet valid", issuer.token(0, &json!({"nbf": NOW + 31}), &json!({}))),
        ("issued tomorrow", issuer.token(0, &json!({"iat": NOW + 86400, "exp": NOW + 90000}), &json!({}))),
        ("for another audience", issuer.token(0, &json!({"aud": "other"}), &json!({}))),
        ("for no audience", issuer.token(0, &json!({"aud": null}), &json!({}))),
        ("without a subject", issuer.token(0, &json!({"sub": null}), &json!({}))),
        ("with a subject that breaks lines", issuer.token(0, &json!({"sub": "a\nb"}), &json!({}))),
        ("oversized", issuer.token(0, &json!({"x": "y".repeat(8192)}), &json!({}))),
    ];
    for (what, token) in attacks {
        let (kind, reason) = edge.refused(&token).await;
        assert!(matches!(kind, Kind::Unauthenticated | Kind::Invalid), "{what}: {reason}");
        assert!(!reason.contains(&token[..20]), "{what}: a refusal quotes the token");
    }
    let token = issuer.plain(1);
    let (_, signature) = token.rsplit_once('.').unwrap();
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(!matches!(edge.judge(&changed).await, Ok(Identity::Principal(_))), "letter {at} of {}", signature.len());
    }
    assert!(issuer.asked.load(Ordering::SeqCst) <= 2, "unknown key ids make no storm: {}", issuer.asked.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_provider_speaks_for_its_own_tenants_only() {
    let (ours, theirs) = (Issuer::start(vec![("k", Key::ed())]).await, Issuer::start(vec![("k", Key::ed())]).await);
    let edge = Edge::with(|acme, globex| {
        // Globex claims our issuer's name, with keys of its own: its tokens are good for itself alone.
        let mut usurper = ours.provider(Some(globex));
        usurper.jwks_url = Some(format!("{}/keys", theirs.url).into());
        let mut by_claim = ours.provider(Some(globex));
        by_claim.audience = "org".into();
        (by_claim.tenant_claim, by_claim.tenant_value) = (Some("/org/id".into()), Some("globex-org".into()));
        vec![ours.provider(Some(acme)), usurper, by_claim]
    })
    .await;
    assert_eq!(&*edge.principal(&ours.plain(0)).await.tenants, &[edge.acme]);
    let (kid, key) = &theirs.keys[0];
    let usurped = signed(&json!({"alg": "EdDSA", "kid": kid}), &ours.claims(), |bytes| key.sign(bytes));
    assert_eq!(&*edge.principal(&usurped).await.tenants, &[edge.globex]);
    let org = |id: &str| ours.token(0, &json!({"aud": "org", "org": {"id": id}}), &json!({}));
    assert_eq!(&*edge.principal(&org("globex-org")).await.tenants, &[edge.globex]);
    assert_eq!(edge.refused(&org("acme-org")).await.0, Kind::Denied);
}

#[tokio::test]
async fn one_user_may_belong_to_several_tenants() {
    let issuer = Issuer::start(vec![("k", Key::ec())]).await;
    let edge = Edge::with(|_, _| vec![issuer.provider(None)]).await;
    let token = |tenants: Value| issuer.token(0, &json!({"tenants": tenants}), &json!({}));
    let both = edge.principal(&token(json!(["globex", edge.acme.to_string(), "nobody"]))).await;
    assert!(both.tenants.len() == 2 && both.belongs_to(edge.acme) && both.belongs_to(edge.globex));
    assert_eq!(&*edge.principal(&token(json!("acme"))).await.tenants, &[edge.acme]);
    assert_eq!(edge.refused(&token(json!(["nobody"]))).await.0, Kind::Denied);
    assert_eq!(edge.refused(&token(json!(null))).await.0, Kind::Denied);
}

#[tokio::test]
async fn an_issuer_that_is_down_is_its_own_tenants_trouble() {
    let (up, down) = (Issuer::start(vec![("k", Key::ed())]).await, Issuer::start(vec![("k", Key::ed())]).await);
    down.down.store(true, Ordering::SeqCst);
    let edge = Edge::with(|acme, globex| vec![up.provider(Some(acme)), down.provider(Some(globex))]).await;
    for _ in 0..50 {
        assert_eq!(edge.refused(&down.plain(0)).await.0, Kind::Unavailable);
        edge.principal(&up.plain(0)).await;
    }
    assert_eq!(down.asked.load(Ordering::SeqCst), 1, "asked again only after a pause");
    down.down.store(false, Ordering::SeqCst);
    edge.clock.pass(2);
    edge.principal(&down.plain(0)).await;
    // Down again: its keys stay good, also when they would be due, until they are a day old.
    down.down.store(true, Ordering::SeqCst);
    let later = |seconds: i64| json!({"iat": NOW, "exp": NOW + seconds + 600});
    edge.clock.pass(3600);
    edge.principal(&down.token(0, &later(3600), &json!({}))).await;
    edge.clock.pass(86_400);
    assert_eq!(edge.refused(&down.token(0, &later(90_000), &json!({}))).await.0, Kind::Unavailable);
}

#[tokio::test]
async fn a_new_key_is_found_and_a_withdrawn_one_forgotten() {
    let (issuer, edge) = one_issuer().await;
    edge.principal(&issuer.plain(0)).await;
    let fresh = Key::ed();
    let token = signed(&json!({"alg": "EdDSA", "kid": "fresh"}), &issuer.claims(), |bytes| fresh.sign(bytes));
    *issuer.published.lock().unwrap() = json!({"keys": [fresh.jwk("fresh"), {"kty": "oct", "k": "AAAA", "kid": "shared"}]});
    assert_eq!(edge.refused(&token).await.0, Kind::Unauthenticated, "just asked: not again so soon");
    edge.clock.pass(11);
    edge.principal(&token).await;
    for n in 0..100 {
        let unknown = issuer.token(0, &json!({}), &json!({"kid": format!("unknown-{n}")}));
        assert_eq!(edge.refused(&unknown).await.0, Kind::Unauthenticated);
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2, "a flood of unknown keys asks nobody");
    edge.clock.pass(300);
    assert_eq!(edge.refused(&issuer.plain(0)).await.0, Kind::Unauthenticated, "withdrawn: judged anew after five minutes");
}

#[tokio::test]
async fn what_the_catalog_takes_back_is_refused_at_once() {
    let (issuer, edge) = one_issuer().await;
    let secret = format!("ik_{}", "A".repeat(43));
    let key = |expires| {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
        ApiKey { id: KeyId::new(), tenant: edge.acme, hash, scopes: ["export".into()].into(), expires }
    };
    let lasting = key(Some(NOW + 100));
    edge.change(|content| content.put_key(lasting.clone())).await;
    let principal = edge.principal(&secret).await;
    assert_eq!((principal.via, &*principal.tenants), (Via::ApiKey, &[edge.acme][..]));
    assert_eq!(*principal.subject, *format!("key:{}", lasting.id));
    assert!(Arc::ptr_eq(&principal, &edge.principal(&secret).await), "remembered");
    assert_eq!(edge.refused(&format!("ik_{}", "B".repeat(43))).await.0, Kind::Unauthenticated);
    edge.change(|content| content.remove_key(lasting.id)).await;
    assert_eq!(edge.refused(&secret).await.0, Kind::Unauthenticated);
    edge.change(|content| content.put_key(key(Some(NOW + 100)))).await;
    edge.principal(&secret).await;
    edge.clock.pass(100);
    assert_eq!(edge.refused(&secret).await.1, "the key has expired");

    let token = issuer.plain(0);
    edge.principal(&token).await;
    let provider = edge.catalog.look(|view| view.providers(&issuer.url, "docs")[0].id);
    edge.change(|content| content.remove_provider(provider)).await;
    assert_eq!(edge.judge(&token).await, Ok(Identity::Session), "an issuer that nobody names any more");
}

/// Past the hard bound a revocation may have been missed: no key is believed, also one that was proven a moment ago. Tokens are.
#[tokio::test]
async fn a_key_is_refused_while_what_is_known_is_too_old() {
    let issuer = Issuer::start(vec![("k", Key::ed())]).await;
    let source = FakeSource::new();
    let acme = fake::tenant("acme", 1, "bronze", "main").unwrap();
    let secret = format!("ik_{}", "A".repeat(43));
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    source.change(|content| {
        content.put_plan(fake::plan("bronze").unwrap());
        content.put_cell(fake::cell("main", "127.0.0.1", 1).unwrap());
        content.put_database(fake::database("main", "insula_pool", 0).unwrap());
        content.put_key(ApiKey { id: KeyId::new(), tenant: acme.id, hash, scopes: [].into(), expires: None });
        content.put_provider(issuer.provider(Some(acme.id)));
        content.put_tenant(acme);
    });
    // Fresh as long as the source answers, and too old soon after.
    let ms = std::time::Duration::from_millis;
    let options = Options { poll: ms(20), soft: ms(500), hard: ms(1_000), ..Options::default() };
    let catalog = Catalog::start(source.clone(), options);
    catalog.ready().await;
    let authenticator =
        Authenticator::with_clock(catalog.clone(), Fetcher::new().unwrap(), &AuthOptions::default(), Stopped::new());
    let judge = async |token: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        authenticator.authenticate(&headers).await
    };
    let becomes = async |wanted: Freshness| {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while catalog.freshness() != wanted {
            assert!(tokio::time::Instant::now() < deadline, "never {wanted:?}");
            tokio::time::sleep(ms(5)).await;
        }
    };
    let is_proven = |judged: Result<Identity, Refusal>| judged.is_ok_and(|identity| identity.principal().is_some());
    let token = issuer.plain(0);
    // On a machine that stands still for a second the catalog may be too old again at once.
    let believed = async || {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while !is_proven(judge(&secret).await) {
            assert!(tokio::time::Instant::now() < deadline, "never believed");
            tokio::time::sleep(ms(5)).await;
        }
    };
    believed().await;
    assert!(is_proven(judge(&token).await));
    source.change_silently(|content| content.set_failing(true));
    becomes(Freshness::Expired).await;
    assert_eq!(judge(&secret).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(
        judge(&format!("ik_{}", "B".repeat(43))).await.unwrap_err().kind(),
        Kind::Unavailable,
        "nor is it said which keys there are"
    );
    assert!(is_proven(judge(&token).await), "a token needs no catalog to be revoked");
    source.change_silently(|content| content.set_failing(false));
    believed().await;
}

#[tokio::test]
async fn keys_are_fetched_from_where_the_catalog_says_and_nowhere_else() {
    let issuer = Issuer::start(vec![("k", Key::ed())]).await;
    for elsewhere in [format!("{}/away", issuer.url), "http://192.0.2.1/keys".into(), "file:///etc/passwd".into()] {
        let edge =
            Edge::with(|acme, _| vec![Provider { jwks_url: Some(elsewhere.as_str().into()), ..issuer.provider(Some(acme)) }])
                .await;
        assert_eq!(edge.refused(&issuer.plain(0)).await.0, Kind::Unavailable, "{elsewhere}");
    }
    // A discovery document of another issuer would lead to another issuer's keys.
    let mixed = Issuer::start(vec![("k", Key::ed())]).await;
    let name = mixed.url.replace("127.0.0.1", "localhost");
    let edge = Edge::with(|acme, _| vec![Provider { issuer: name.as_str().into(), ..mixed.provider(Some(acme)) }]).await;
    let token = mixed.token(0, &json!({"iss": name}), &json!({}));
    assert_eq!(edge.refused(&token).await.0, Kind::Unavailable);
}
