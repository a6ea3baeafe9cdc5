//! A gateway that is started from its snapshot when the last word of the control plane is a week old.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use insula_catalog::{ApiKey, Catalog, FakeSource, Freshness, Options, Provider, fake};
use insula_core::{KeyId, ProviderId, TenantId};
use insula_gateway::Listeners;
use insula_telemetry::Shutdown;
use serde_json::json;

use crate::stage::{LONG, Wire, app, config, echo, get, nobody, ok, status};
use crate::tls::{ask, connect, write};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// An identity provider with one key; it is nobody of the control plane's, and is there.
struct Issuer {
    url: String,
    key: Ed25519KeyPair,
}

impl Issuer {
    async fn start() -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        let public = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": public}]}).to_string();
        let url = Arc::new(std::sync::OnceLock::<String>::new());
        let own = Arc::clone(&url);
        let app = app(move |request| {
            let own = own.get().map_or("", String::as_str);
            let discovery = json!({"issuer": own, "jwks_uri": format!("{own}/keys")}).to_string();
            let body = if request.starts_with("GET /keys ") { &jwks } else { &discovery };
            ok(body).replace("\r\n\r\n", "\r\ncontent-type: application/json\r\n\r\n")
        })
        .await;
        url.set(format!("http://{}", app.addr)).unwrap();
        Self { url: format!("http://{}", app.addr), key }
    }

    fn token(&self) -> String {
        let claims = json!({"iss": self.url, "aud": "docs", "sub": "alice", "iat": now(), "exp": now() + 600});
        let parts =
            [json!({"alg": "EdDSA", "kid": "k", "typ": "JWT"}), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = parts.join(".");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).as_ref()))
    }

    fn provider(&self, tenant: TenantId) -> Provider {
        Provider {
            id: ProviderId::new(),
            tenant: Some(tenant),
            issuer: self.url.as_str().into(),
            audience: "docs".into(),
            jwks_url: None,
            subject_claim: "sub".into(),
            scopes_claim: "scope".into(),
            tenant_claim: None,
            tenant_value: None,
        }
    }
}

const SECRET: &str = "ik_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What a gateway of a week ago has left.
async fn left_behind(snapshot: &Path, issuer: &Issuer, app: std::net::SocketAddr) {
    let source = FakeSource::new();
    source.change(|content| {
        content.put_plan(fake::plan("bronze").unwrap());
        let mut cell = fake::cell("main", "127.0.0.1", 1).unwrap();
        cell.app_url = Some(format!("http://{app}").into());
        content.put_cell(cell);
        content.put_database(fake::database("main", "insula_pool", 1).unwrap());
        let mut acme = fake::tenant("acme", 1, "bronze", "main").unwrap();
        acme.domains = vec!["docs.acme.example".into()];
        content.put_provider(issuer.provider(acme.id));
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, SECRET.as_bytes()).as_ref());
        content.put_key(ApiKey { id: KeyId::new(), tenant: acme.id, hash, scopes: [].into(), expires: None });
        content.put_tenant(acme);
    });
    let catalog = Catalog::start(source, Options { disk: Some(snapshot.to_owned()), ..Options::default() });
    catalog.ready().await;
    assert_eq!(catalog.freshness(), Freshness::Fresh);
    let deadline = tokio::time::Instant::now() + LONG;
    while !snapshot.exists() {
        assert!(tokio::time::Instant::now() < deadline, "no snapshot");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(catalog);
}

/// Moves the time of the last contact into the past: it stands in the file's head beside a sum of the head, and in its first record; the last
/// one is a sum of all.
fn make_old(snapshot: &Path) {
    let mut file = std::fs::read(snapshot).unwrap();
    let contact = i64::from_le_bytes(file[16..24].try_into().unwrap());
    assert!((contact / 1_000 - now()).abs() < 600, "the head has another form now: {contact}");
    let old = contact - i64::try_from(WEEK.as_millis()).unwrap();
    file[16..24].copy_from_slice(&old.to_le_bytes());
    let sum = digest(&SHA256, &file[..24]);
    file[24..32].copy_from_slice(&sum.as_ref()[..8]);
    // A number of as many digits.
    let (name, end) = (b"\"contact\":", file.len() - 32);
    let at = file.windows(name.len()).position(|bytes| bytes == name).expect("the first record") + name.len();
    assert!(file[at..at + 13].iter().all(u8::is_ascii_digit), "the first record has another form now");
    file[at..at + 13].copy_from_slice(old.to_string().as_bytes());
    let sum = digest(&SHA256, &file[32..end - 5]);
    file[end..].copy_from_slice(sum.as_ref());
    std::fs::write(snapshot, file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_week_without_the_control_plane_all_is_served_but_api_keys() {
    let (main, issuer, gone) = (echo("main").await, Issuer::start().await, nobody());
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("catalog.snapshot");
    left_behind(&snapshot, &issuer, main.addr).await;
    let certificate = write(folder.path(), "acme.localhost", "acme.localhost");
    std::fs::write(folder.path().join("edge.key"), "ik_edge\n").unwrap();
    let mut config = config();
    config.listen.https = config.listen.http.clone();
    config.tls.certificates = Some(folder.path().to_owned());
    config.catalog.control_url = Some(format!("http://{}", gone.addr));
    config.catalog.key_file = Some(folder.path().join("edge.key"));
    config.catalog.snapshot_file = Some(snapshot.clone());
    for age in [Duration::ZERO, WEEK] {
        if age == WEEK {
            make_old(&snapshot);
        }
        let listeners = Listeners::bind(&config.listen).unwrap();
        let at = |scheme| listeners.addrs().into_iter().find(|(of, _)| *of == scheme).unwrap().1;
        let (http, https) = (at("http"), at("https"));
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let running = tokio::spawn(insula_gateway::run(config.clone(), listeners, shutdown.clone()));
        let mut client = Wire::connect(http).await;
        for host in ["acme.localhost", "docs.acme.example"] {
            let answer = client.ask(&get(host, "/")).await;
            assert!(status(&answer) == 200 && answer.contains("\r\n\r\nmain\n"), "{host}: {answer}");
        }
        assert_eq!(status(&client.ask(&get("nobody.localhost", "/")).await), 404);
        ask(&mut connect(https, "acme.localhost", &certificate, b"http/1.1").await.unwrap(), "acme.localhost").await;
        let mut bearing = async |token: &str| {
            status(&client.ask(&format!("GET / HTTP/1.1\r\nhost: acme.localhost\r\nauthorization: Bearer {token}\r\n\r\n")).await)
        };
        let token = issuer.token();
        assert_eq!(bearing(&token).await, 200);
        // Proven, not passed through.
        let at = token.len() - 10;
        let forged = format!("{}{}{}", &token[..at], if token.as_bytes()[at] == b'A' { 'B' } else { 'A' }, &token[at + 1..]);
        assert_eq!(bearing(&forged).await, 401);
        // Whether a key was revoked meanwhile cannot be known: after a moment nobody expects it, after a week it is not believed.
        assert_eq!(bearing(SECRET).await, if age == WEEK { 503 } else { 200 }, "after {age:?}");
        shutdown.trigger();
        drop(client);
        tokio::time::timeout(LONG, running).await.unwrap().unwrap().unwrap();
    }
}
