//! The catalog over HTTP, as a data plane follows it.

use std::time::{Duration, Instant};

use insula_catalog::{Catalog, Freshness, Options};
use insula_core::TenantState;
use serde_json::Value;

use crate::edge_house::{EdgeHouse, no_polling, ready, until};

#[tokio::test]
async fn changes_are_pushed_and_signs_of_life_keep_a_follower_fresh() {
    let mut house = EdgeHouse::start().await;
    let acme = house.tenant("acme").await;
    let options = Options { soft: Duration::from_millis(1500), ..no_polling() };
    let catalog = Catalog::start(house.source(), options);
    ready(&catalog).await;
    assert_eq!(catalog.by_host("acme.localhost").unwrap().id, acme);
    // The first change may come before the stream is there; the stream begins with it then.
    house.set_state(acme, "suspended").await;
    until("suspended", async || catalog.by_id(acme).unwrap().state() == TenantState::Suspended).await;
    let mut took = Vec::new();
    for n in 0..20 {
        let began = Instant::now();
        let id = house.tenant(&format!("tenant-{n}")).await;
        until("the tenant", async || catalog.by_id(id).is_some()).await;
        took.push(began.elapsed());
    }
    took.sort();
    // One may be late on a machine at work; most are not.
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");
    // Nobody polls: it is the stream's signs of life that renew what is known, several in a second. A stream without them is begun anew
    // every three seconds, which renews it as well: eight times take 24 seconds then.
    let (began, mut renewed, mut age) = (Instant::now(), 0, catalog.age());
    while renewed < 8 {
        assert!(began.elapsed() < Duration::from_secs(20), "renewed {renewed} times only");
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = catalog.age();
        renewed += u32::from(now < age);
        age = now;
    }
    until("fresh", async || catalog.freshness() == Freshness::Fresh).await;
    // A refresh asks for the present, whatever the stream has brought.
    for n in 0..20 {
        house.sql(format!("UPDATE catalog.tenant SET name = 'n{n}' WHERE id = '{acme}'")).await;
        catalog.refresh().await.unwrap();
        assert_eq!(&*catalog.by_id(acme).unwrap().name, format!("n{n}"));
    }
}

#[tokio::test]
async fn a_follower_outlives_the_control_plane_and_takes_up_where_it_was() {
    let mut house = EdgeHouse::start().await;
    let acme = house.tenant("acme").await;
    let options = Options { poll: Duration::from_millis(200), soft: Duration::from_millis(900), ..Options::default() };
    let catalog = Catalog::start(house.source(), options);
    ready(&catalog).await;
    for round in 0..3 {
        house.kill();
        house.set_state(acme, if round % 2 == 0 { "suspended" } else { "active" }).await;
        until("stale", async || catalog.freshness() == Freshness::Stale).await;
        assert!(catalog.by_slug("acme").is_some(), "what is known is still there");
        house.resume().await;
        let wanted = if round % 2 == 0 { TenantState::Suspended } else { TenantState::Active };
        until("the change", async || catalog.by_id(acme).unwrap().state() == wanted).await;
        until("fresh", async || catalog.freshness() == Freshness::Fresh).await;
    }
}

#[tokio::test]
async fn who_was_away_too_long_or_knows_another_catalog_loads_anew() {
    let mut house = EdgeHouse::start().await;
    let acme = house.tenant("acme").await;
    let catalog = Catalog::start(house.source(), Options::default());
    ready(&catalog).await;
    house.kill();
    house.set_state(acme, "deleted").await;
    let beta = house.tenant("beta").await;
    house.sql("SELECT catalog.trim_feed(0)").await;
    house.resume().await;
    until("loaded anew", async || catalog.by_id(acme).is_none() && catalog.by_id(beta).is_some()).await;
    // As after a restored backup: what was known is of another history, whatever the revisions say.
    house.kill();
    house
        .sql(format!(
            "UPDATE catalog.identity SET id = gen_random_uuid();
             SET session_replication_role = replica; UPDATE catalog.tenant SET state = 'suspended' WHERE id = '{beta}';
             RESET session_replication_role"
        ))
        .await;
    house.resume().await;
    until("another catalog", async || catalog.by_id(beta).unwrap().state() == TenantState::Suspended).await;
}

#[tokio::test]
async fn asking_is_conditional() {
    let mut house = EdgeHouse::start().await;
    let whole = house.get("/v1/catalog").send().await.unwrap();
    let identity = whole.headers()["insula-catalog"].to_str().unwrap().to_owned();
    let text = whole.text().await.unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let revision = last["loaded"]["revision"].as_i64().unwrap();
    let acme = house.tenant("acme").await;
    let answer = house.get(&format!("/v1/catalog?since={revision}&catalog={identity}")).send().await.unwrap();
    let etag = answer.headers()["etag"].clone();
    let frame: Value = answer.json().await.unwrap();
    assert_eq!(frame["since"], revision);
    let now = frame["revision"].as_i64().unwrap();
    assert_eq!(etag, format!("\"{now}\"").as_str());
    assert_eq!(frame["changes"][0]["tenant"][0], acme.to_string());
    let again = house.get(&format!("/v1/catalog?since={now}")).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["etag"].clone()), (304, etag));
    let other = house.get(&format!("/v1/catalog?since={now}&catalog={}", uuid::Uuid::new_v4())).send().await.unwrap();
    assert_eq!(other.status(), 410);
    assert_eq!(house.get(&format!("/v1/catalog?since={}", now + 1000)).send().await.unwrap().status(), 410);
    house.sql("SELECT catalog.trim_feed(0)").await;
    assert_eq!(house.get(&format!("/v1/catalog?since={revision}")).send().await.unwrap().status(), 410);
}

/// What a stream has said so far.
async fn said(response: &mut reqwest::Response, until: &str) -> String {
    let mut text = String::new();
    while !text.contains(until) {
        let chunk = tokio::time::timeout(Duration::from_secs(60), response.chunk()).await.expect("it goes on").unwrap();
        text.push_str(std::str::from_utf8(&chunk.expect("it goes on")).unwrap());
    }
    text
}

#[tokio::test]
async fn a_stream_can_be_read_by_anybody() {
    let mut house = EdgeHouse::start().await;
    let acme = house.tenant("acme").await;
    let mut stream = house.get("/v1/catalog/watch").send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let text = said(&mut stream, "event: current").await;
    assert!(text.contains("event: page\ndata: {\"plans\":") && text.contains("event: loaded\nid: "), "{text}");
    assert!(text.contains(&acme.to_string()));
    let id: i64 = text.rsplit("id: ").next().unwrap().split('\n').next().unwrap().parse().unwrap();
    drop(stream);
    house.set_state(acme, "suspended").await;
    // As a browser does it.
    let resumed = house.get("/v1/catalog/watch?since=0").header("last-event-id", id.to_string());
    let text = said(&mut resumed.send().await.unwrap(), "\"suspended\"").await;
    assert!(text.contains("event: changes\n") && !text.contains("event: page"), "{text}");
    let bad = house.get("/v1/catalog/watch").header("last-event-id", "x").send().await.unwrap();
    assert_eq!(bad.status(), 422);
}

#[tokio::test]
async fn a_key_that_is_taken_back_watches_no_longer() {
    let house = EdgeHouse::start().await;
    // Keys are looked at five seconds after a stream has begun: it has to hear of it before.
    let began = Instant::now();
    let mut stream = house.get("/v1/catalog/watch").send().await.unwrap();
    said(&mut stream, "event: current").await;
    house.control().revoke_api_key("test", house.key_id).await.unwrap();
    let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the stream ends");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(house.get("/v1/catalog/watch").send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_tenants_configuration_is_what_holds_for_it() {
    let mut house = EdgeHouse::start().await;
    let acme = house.tenant("acme").await;
    house
        .sql(format!(
            "UPDATE catalog.tenant SET limits = '{{\"max_users\": 7}}', features = '{{\"search\": false}}', schema_version = 3 WHERE id = '{acme}';
             INSERT INTO catalog.document_version (name, version, body, created_by) VALUES ('look', 1, '{{\"dark\": true}}', 'test');
             INSERT INTO catalog.document (name, stable) VALUES ('look', 1)"
        ))
        .await;
    let answer = house.get("/v1/tenants/acme/config").send().await.unwrap();
    let etag = answer.headers()["etag"].clone();
    let config: Value = answer.json().await.unwrap();
    assert_eq!((&config["limits"]["max_users"], &config["limits"]["requests_per_second"]), (&7.into(), &20.into()));
    assert_eq!((&config["features"]["search"], &config["schema_version"]), (&false.into(), &3.into()));
    assert_eq!(config["placement"], serde_json::json!({"cell": "main", "isolation": "row", "epoch": 1, "state": "active"}));
    assert_eq!(config["documents"]["look"], serde_json::json!({"version": 1, "value": {"dark": true}}));
    let ask = || house.get(&format!("/v1/tenants/{acme}/config")).header("if-none-match", &etag);
    assert_eq!(ask().send().await.unwrap().status(), 304);
    // A plan is part of it.
    sqlx::query("UPDATE catalog.plan SET limits = limits || '{\"request_burst\": 41}'")
        .execute(house.control().catalog_pool())
        .await
        .unwrap();
    assert_eq!(ask().send().await.unwrap().status(), 200);
}
