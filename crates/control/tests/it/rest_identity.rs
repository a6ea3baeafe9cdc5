//! Who may speak for a tenant, over REST: what is taken, what is refused, what is told once, and what is published.

use insula_core::token::KeySet;
use serde_json::{Value, json};

use crate::rest_house::{House, answer, house};
use crate::rest_tenants::{bundle, ready};

async fn tenant(house: &House, slug: &str) {
    ready(house).await;
    bundle(house).await;
    let made = house.post("/v1/tenants?wait=true", &json!({"slug": slug, "plan": "bronze"})).await;
    assert!(made.status.is_success(), "{}", made.text);
}

#[tokio::test]
async fn a_key_is_told_once_listed_without_and_revoked() {
    let house = house().await;
    tenant(house, "keyholder").await;
    let body = json!({"name": "nightly export", "scopes": ["read", "export:all"], "expires_at": "2099-01-01T00:00:00Z"});
    let made = house.post("/v1/tenants/keyholder/keys", &body).await;
    let (id, secret) = (made.is(201).at("/id").to_owned(), made.at("/secret").to_owned());
    assert!(secret.starts_with("ik_") && secret.len() == 46);
    let list = house.get("/v1/tenants/keyholder/keys").await;
    assert!(list.is(200).text.contains("nightly export") && !list.text.contains(&secret));
    assert_eq!(list.body["items"][0]["scopes"], json!(["read", "export:all"]));
    answer(house.admin("DELETE", &format!("/v1/tenants/keyholder/keys/{id}"))).await.is(200);
    let revoked = house.get("/v1/tenants/keyholder/keys").await;
    assert!(revoked.body["items"][0]["revoked_at"].is_string());
    // A tenant's key opens nothing here, and no other tenant's.
    answer(house.bare("GET", "/v1/tenants").bearer_auth(&secret)).await.is(401);
    tenant(house, "keyless").await;
    answer(house.admin("DELETE", &format!("/v1/tenants/keyless/keys/{id}"))).await.is_problem(404, "not-found");
    for bad in [
        json!({"name": ""}),
        json!({"name": "x", "scopes": ["two words"]}),
        json!({"name": "x", "scopes": ["quo\"te"]}),
        json!({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}),
        json!({"name": "x", "scope": []}),
    ] {
        house.post("/v1/tenants/keyholder/keys", &bad).await.is_problem(422, "invalid");
    }
}

#[tokio::test]
async fn a_provider_is_believed_for_its_tenant_or_by_claim() {
    let house = house().await;
    tenant(house, "federated").await;
    let good = json!({"tenant": "federated", "issuer": "https://id.federated.example", "audience": "docs"});
    let made = house.post("/v1/providers", &good).await;
    let id = made.is(201).at("/id").to_owned();
    assert_eq!((made.at("/subject_claim"), made.at("/scopes_claim")), ("sub", "scope"));
    house.post("/v1/providers", &good).await.is_problem(409, "conflict");
    let with = |change: Value| {
        let mut body = good.clone();
        change.as_object().expect("an object").iter().for_each(|(name, value)| body[name] = value.clone());
        body
    };
    house.post("/v1/providers", &with(json!({"subject_claim": "email", "tenant": null, "tenant_claim": "org"}))).await.is(409);
    for bad in [
        json!({"issuer": "http://id.federated.example"}),
        json!({"issuer": "https://user:pw@id.example"}),
        json!({"issuer": "id.example"}),
        json!({"jwks_url": "file:///etc/passwd"}),
        json!({"jwks_url": "http://169.254.169.254/latest"}),
        json!({"audience": ""}),
        json!({"tenant_claim": "org"}),
        json!({"tenant_value": "x"}),
        json!({"tenant": null}),
        json!({"subject_claim": "a\nb"}),
    ] {
        house.post("/v1/providers", &with(bad)).await.is_problem(422, "invalid");
    }
    house.post("/v1/providers", &with(json!({"tenant": "nobody-at-all"}))).await.is_problem(404, "not-found");
    let host = with(json!({"tenant": null, "tenant_claim": "/org/tenants", "issuer": "https://host.example"}));
    house.post("/v1/providers", &host).await.is(201);
    assert_eq!(house.get("/v1/providers?tenant=federated").await.is(200).body["items"].as_array().map(Vec::len), Some(1));
    answer(house.admin("DELETE", &format!("/v1/providers/{id}"))).await.is(204);
    answer(house.admin("DELETE", &format!("/v1/providers/{id}"))).await.is_problem(404, "not-found");
}

#[tokio::test]
async fn signing_keys_are_published_before_they_sign() {
    let house = house().await;
    let jwks =
        async || KeySet::from_jwks(&answer(house.bare("GET", "/.well-known/jwks.json")).await.is(200).text).expect("a JWKS");
    let first = house.get("/v1/context-keys").await;
    let first = first.is(200).at("/items/0/kid").to_owned();
    assert!(jwks().await.has(&first), "there is a key from the start");
    let next = house.post("/v1/context-keys", &json!({"overlap_seconds": 600})).await;
    let next = next.is(201).at("/kid").to_owned();
    let both = jwks().await;
    assert!(both.has(&first) && both.has(&next));
    house.post("/v1/context-keys", &json!({"overlap_seconds": 0})).await.is_problem(409, "conflict");
    house.post("/v1/context-keys", &json!({"overlap_seconds": 604_801})).await.is_problem(422, "invalid");
    let raw = answer(house.bare("GET", "/.well-known/jwks.json")).await;
    assert!(!raw.text.contains("\"d\"") && raw.header("cache-control").contains("max-age=60"));
    assert_eq!(raw.header("content-type"), "application/jwk-set+json");

    let cell = house.get("/v1/cells").await.at("/items/0/name").to_owned();
    let of_cell = answer(house.bare("GET", &format!("/.well-known/jwks/{cell}"))).await;
    assert_eq!(of_cell.is(200).body["keys"].as_array().map(Vec::len), Some(1));
    assert!(!both.has(of_cell.at("/keys/0/kid")), "a cell's key is never among the gateways'");
    answer(house.bare("GET", "/.well-known/jwks/nowhere")).await.is_problem(404, "not-found");
}
