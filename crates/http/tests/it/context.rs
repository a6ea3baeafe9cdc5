//! Tenant contexts from the signer to the verifier: remembered, rotated, refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::Router;
use axum::routing::get;
use http::{HeaderMap, HeaderValue};
use insula_catalog::Catalog;
use insula_core::keys::Secret;
use insula_core::token::{ContextKey, ContextKeys, KeySet, TokenError};
use insula_core::{Principal, RootKey, Via};
use insula_http::identity::{CONTEXT, ContextSigner, Fetcher, Identity, Published, Verifier, VerifyError};
use tokio::net::TcpListener;

use crate::identity::{NOW, Stopped};

fn root() -> RootKey {
    RootKey::new(Secret::from_hex(&"5a".repeat(32)).unwrap())
}

fn key(no: i32) -> ContextKey {
    root().context_key(no).unwrap()
}

fn signer(keys: ContextKeys, clock: &Stopped) -> ContextSigner {
    ContextSigner::gateway(keys).with_clock(clock.clone())
}

fn first() -> ContextKeys {
    ContextKeys::new([(0, key(1))]).unwrap()
}

fn alice(catalog: &Catalog, scopes: &[&str]) -> Identity {
    alice_of("https://id.acme.example", catalog, scopes)
}

fn alice_of(issuer: &str, catalog: &Catalog, scopes: &[&str]) -> Identity {
    let tenants = [catalog.by_slug("acme").unwrap().id].into();
    let scopes = scopes.iter().map(|scope| Arc::from(*scope)).collect();
    Identity::Principal(Arc::new(Principal {
        subject: "alice".into(),
        issuer: Some(issuer.into()),
        via: Via::Oidc,
        tenants,
        scopes,
    }))
}

fn carrying(values: &[&HeaderValue]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(CONTEXT, (*value).clone());
    }
    headers
}

/// A file of public keys, and a verifier that follows it.
async fn verifier(keys: &KeySet, clock: &Stopped) -> (Verifier, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), keys.to_jwks()).unwrap();
    let published = Published::follow(None, Some(file.path().into()), Fetcher::new().unwrap()).await.unwrap();
    (Verifier::new("insula-app:main", published).with_clock(clock.clone()), file)
}

#[tokio::test]
async fn one_signature_serves_a_tenant_and_principal_for_half_a_minute() {
    let (catalog, clock) = (crate::catalog().await, Stopped::new());
    let signer = signer(first(), &clock);
    let route = catalog.by_slug("acme").unwrap().arc();
    let header = |identity: &Identity| signer.header(&route, identity);
    let token = header(&alice(&catalog, &["read"]));
    assert!(token.is_sensitive());
    clock.pass(29);
    assert_eq!(header(&alice(&catalog, &["read"])), token);
    assert_ne!(header(&alice(&catalog, &["read", "write"])), token);
    assert_ne!(header(&Identity::Anonymous), header(&Identity::Session));
    assert_ne!(header(&alice_of("https://login.example", &catalog, &["read"])), token, "a namesake of another issuer");
    assert_eq!(header(&alice(&catalog, &["read"])), token);
    let other = catalog.by_slug("asleep").unwrap().arc();
    assert_ne!(signer.header(&other, &alice(&catalog, &["read"])), token);
    clock.pass(1);
    assert_ne!(header(&alice(&catalog, &["read"])), token);
    let (verifier, _file) = verifier(&first().public(), &clock).await;
    let verified = verifier.verify(&carrying(&[&token])).await.unwrap();
    assert_eq!(verified.identity.principal().unwrap().issuer.as_deref(), Some("https://id.acme.example"));
    assert_eq!((verified.claims().tid, verified.claims().slug.as_str()), (route.id, "acme"));
    assert_eq!(verified.identity, alice(&catalog, &["read"]));
    assert!(Arc::ptr_eq(&verified, &verifier.verify(&carrying(&[&token])).await.unwrap()), "verified once");
    clock.pass(20);
    assert_eq!(
        verifier.verify(&carrying(&[&token])).await,
        Err(TokenError::Expired.into()),
        "remembered no longer than it is good"
    );
}

#[tokio::test]
async fn whoever_has_many_scopes_has_those_that_there_is_room_for() {
    let (catalog, clock) = (crate::catalog().await, Stopped::new());
    let (verifier, _file) = verifier(&first().public(), &clock).await;
    let route = catalog.by_slug("acme").unwrap().arc();
    // As many, and as long, as are taken from a token; some would be longer written as JSON.
    for letter in ["r", "\"", "\u{e9}"] {
        let names: Vec<String> = (0..64).map(|n| format!("{n:02}{}", letter.repeat(98 / letter.len()))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let token = signer(first(), &clock).header(&route, &alice(&catalog, &names));
        let verified = verifier.verify(&carrying(&[&token])).await.unwrap();
        let kept = &verified.identity.principal().unwrap().scopes;
        assert!((10..64).contains(&kept.len()), "{} of {letter}", kept.len());
        assert!(kept.iter().zip(&names).all(|(kept, name)| **kept == **name), "{kept:?}");
    }
    let enough: Vec<String> = (0..20).map(|n| format!("{n:0100}")).collect();
    let enough: Vec<&str> = enough.iter().map(String::as_str).collect();
    let token = signer(first(), &clock).header(&route, &alice(&catalog, &enough));
    assert_eq!(verifier.verify(&carrying(&[&token])).await.unwrap().identity, alice(&catalog, &enough));
}

#[tokio::test]
async fn a_request_without_a_context_that_holds_has_none() {
    let (catalog, clock) = (crate::catalog().await, Stopped::new());
    let (verifier, _file) = verifier(&first().public(), &clock).await;
    let route = catalog.by_slug("acme").unwrap().arc();
    let good = signer(first(), &clock).header(&route, &Identity::Anonymous);
    let refused = async |values: &[&HeaderValue]| verifier.verify(&carrying(values)).await.unwrap_err();
    assert_eq!(refused(&[]).await, VerifyError::Absent);
    assert_eq!(refused(&[&good, &good]).await, VerifyError::Twice);
    let stranger = signer(ContextKeys::new([(0, key(9))]).unwrap(), &clock).header(&route, &Identity::Anonymous);
    assert_eq!(refused(&[&stranger]).await, TokenError::UnknownKey.into());
    let elsewhere = signer(first(), &clock).header_for(&route, &Identity::Anonymous, Some("insula-app:second"));
    assert_eq!(refused(&[&elsewhere]).await, TokenError::Audience.into());
    assert!(verifier.verify(&carrying(&[&HeaderValue::from_bytes(b"\xff\xfe").unwrap()])).await.is_err());
    clock.pass(50);
    assert_eq!(refused(&[&good]).await, TokenError::Expired.into());
}

#[tokio::test]
async fn a_cell_speaks_for_its_own_tenants_and_never_as_the_gateway() {
    let (catalog, clock) = (crate::catalog().await, Stopped::new());
    let (verifier, _file) = verifier(&first().public(), &clock).await;
    let cell = |name: &str| root().cell(&name.parse().unwrap()).context_key().unwrap();
    let trusted = ["main", "second"].map(|name| (name.parse().unwrap(), KeySet::new([*cell(name).public()])));
    let route = catalog.by_slug("acme").unwrap().arc();
    let token = |cell_key: ContextKey, issuer: &str| {
        let keys = ContextKeys::new([(0, cell_key)]).unwrap();
        ContextSigner::new(keys, issuer, 16).with_clock(clock.clone()).header(&route, &Identity::Anonymous)
    };
    let check = |header: HeaderValue| verifier.check(&header);
    assert!(check(token(cell("main"), "insula-app:main")).is_err(), "not before it is trusted");
    verifier.trust_cells(trusted.into());
    assert!(check(token(cell("main"), "insula-app:main")).is_ok());
    assert_eq!(check(token(cell("second"), "insula-app:second")), Err(VerifyError::Beyond), "acme lives in main");
    assert_eq!(check(token(cell("second"), "insula-app:main")), Err(TokenError::UnknownKey.into()));
    assert_eq!(check(token(cell("main"), "insula-gateway")), Err(TokenError::UnknownKey.into()));
    assert_eq!(check(token(cell("main"), "insula-app:nowhere")), Err(TokenError::UnknownKey.into()));
}

#[tokio::test]
async fn keys_rotate_unnoticed_and_outlast_whoever_publishes_them() {
    let (catalog, clock) = (crate::catalog().await, Stopped::new());
    let route = catalog.by_slug("acme").unwrap().arc();
    let (asked, down) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let published = Arc::new(std::sync::Mutex::new(first().public().to_jwks()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/.well-known/jwks.json", listener.local_addr().unwrap());
    let answer = {
        let (asked, down, published) = (asked.clone(), down.clone(), published.clone());
        async move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let status = if down.load(Ordering::SeqCst) { 503 } else { 200 };
            (http::StatusCode::from_u16(status).unwrap(), published.lock().unwrap().clone())
        }
    };
    let app = Router::new().route("/.well-known/jwks.json", get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("context-jwks.json");
    let follow = async || Published::follow(Some(url.clone()), Some(file.clone()), Fetcher::new().unwrap()).await.unwrap();
    let verifier = Verifier::new("insula-app:main", follow().await).with_clock(clock.clone());

    let both = ContextKeys::new([(0, key(1)), (NOW + 60, key(2))]).unwrap();
    let signer = signer(first(), &clock);
    let verified =
        async |signer: &ContextSigner| verifier.verify(&carrying(&[&signer.header(&route, &Identity::Anonymous)])).await;
    verified(&signer).await.unwrap();
    // Published before it signs; the verifier finds it when it first sees it.
    *published.lock().unwrap() = both.public().to_jwks();
    signer.replace_keys(both.clone());
    let before = asked.load(Ordering::SeqCst);
    for _ in 0..4 {
        clock.pass(30);
        verified(&signer).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), before + 1, "asked once, for the new key");
    // A flood of unknown keys asks no more often.
    for no in 10..60 {
        let stranger = self::signer(ContextKeys::new([(0, key(no))]).unwrap(), &clock);
        assert_eq!(verified(&stranger).await, Err(TokenError::UnknownKey.into()));
    }
    assert!(asked.load(Ordering::SeqCst) <= before + 2);
    // Nobody answers: a process that starts now has what the file kept.
    down.store(true, Ordering::SeqCst);
    let late = Verifier::new("insula-app:main", follow().await).with_clock(clock.clone());
    late.verify(&carrying(&[&signer.header(&route, &Identity::Anonymous)])).await.unwrap();
    assert!(Published::follow(Some(url.clone()), None, Fetcher::new().unwrap()).await.is_err());
}
