//! The authenticator against a real OpenID Connect provider: npm's `oidc-provider`, locked and installed once in the user's cache folder.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options, Provider};
use insula_core::{Clock, Kind, ProviderId, SystemClock, TenantId, Via};
use insula_http::identity::{AuthOptions, Authenticator, Fetcher, Identity, Refusal};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::languages::{install, installed, npm_ci};

/// The machine's clock, moved on.
#[derive(Clone, Default)]
struct Shifted(Arc<AtomicI64>);

impl Clock for Shifted {
    fn unix_seconds(&self) -> i64 {
        SystemClock.unix_seconds() + self.0.load(Ordering::SeqCst)
    }
}

struct Real {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    issuer: String,
    client: reqwest::Client,
}

impl Real {
    async fn start() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc");
        let place = installed("oidc", &here.join("package-lock.json"));
        std::fs::create_dir_all(&place).unwrap();
        for file in ["package.json", "package-lock.json", "provider.mjs"] {
            std::fs::copy(here.join(file), place.join(file)).unwrap();
        }
        if !place.join("done").exists() {
            install(&mut npm_ci(&place)).await;
            std::fs::write(place.join("done"), "").unwrap();
        }
        let mut command = Command::new("node");
        command.arg(place.join("provider.mjs")).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = said.next_line().await.unwrap().expect("it says where it listens");
        let issuer = line.rsplit(' ').next().unwrap().to_owned();
        Self { child, said, issuer, client: reqwest::Client::new() }
    }

    /// An access token as a program gets it.
    async fn token(&self, algorithm: &str, resource: &str) -> String {
        let request = self.client.post(format!("{}/token", self.issuer));
        let request = request.basic_auth(format!("program-{algorithm}"), Some("a%20secret%20of%20the%20test"));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer =
            request.body(format!("grant_type=client_credentials&scope=read+write&resource={resource}")).send().await.unwrap();
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        body["access_token"].as_str().unwrap_or_else(|| panic!("no token: {body}")).to_owned()
    }

    fn provider(&self, tenant: Option<TenantId>, audience: &str) -> Provider {
        Provider {
            id: ProviderId::new(),
            tenant,
            issuer: self.issuer.as_str().into(),
            audience: audience.into(),
            jwks_url: None,
            subject_claim: "sub".into(),
            scopes_claim: "scope".into(),
            tenant_claim: tenant.is_none().then(|| "tenants".into()),
            tenant_value: None,
        }
    }
}

#[tokio::test]
async fn tokens_of_a_real_provider_are_judged_through_discovery_rotation_and_outage() {
    let mut real = Real::start().await;
    let source = FakeSource::new();
    let (acme, globex) =
        (fake::tenant("acme", 1, "bronze", "main").unwrap(), fake::tenant("globex", 2, "bronze", "main").unwrap());
    let (acme_id, globex_id) = (acme.id, globex.id);
    source.change(|content| {
        content.put_plan(fake::plan("bronze").unwrap());
        content.put_tenant(acme);
        content.put_tenant(globex);
        content.put_provider(real.provider(Some(acme_id), "docs"));
    });
    let catalog = Catalog::start(source.clone(), Options::default());
    catalog.ready().await;
    let clock = Shifted::default();
    let edge = Authenticator::with_clock(catalog.clone(), Fetcher::new().unwrap(), &AuthOptions::default(), clock.clone());
    let judge = async |token: &str| -> Result<Identity, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        edge.authenticate(&headers).await
    };
    let principal = async |token: &str| match judge(token).await {
        Ok(Identity::Principal(principal)) => principal,
        other => panic!("not proven: {other:?}"),
    };

    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let found = principal(&real.token(algorithm, "urn:docs").await).await;
        assert_eq!((&*found.subject, found.via, &*found.tenants), (&*format!("program-{algorithm}"), Via::Oidc, &[acme_id][..]));
        assert_eq!(found.scopes.iter().map(|scope| &**scope).collect::<Vec<_>>(), ["read", "write"]);
    }
    let other = judge(&real.token("ES256", "urn:other").await).await.unwrap_err();
    assert_eq!(other.to_string(), "the token is for another audience");
    // The host side's own: its tokens name the tenants.
    source.change(|content| content.put_provider(real.provider(None, "other")));
    catalog.refresh().await.unwrap();
    let both = principal(&real.token("ES256", "urn:other").await).await;
    assert!(both.belongs_to(acme_id) && both.belongs_to(globex_id));

    // A rotation: new keys, found when the first token of one comes.
    let old = real.token("EdDSA", "urn:docs").await;
    principal(&old).await;
    let pid = real.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    while real.said.next_line().await.unwrap().expect("it says that it has done so") != "rotated" {}
    clock.0.fetch_add(11, Ordering::SeqCst);
    let new = real.token("EdDSA", "urn:docs").await;
    principal(&new).await;
    clock.0.fetch_add(301, Ordering::SeqCst);
    assert_eq!(judge(&old).await.unwrap_err().kind(), Kind::Unauthenticated, "its key was withdrawn");

    // Gone: what its keys have signed stays good.
    let last = real.token("RS256", "urn:docs").await;
    real.child.kill().await.unwrap();
    principal(&last).await;
    principal(&new).await;
}
