//! Plans over REST: pages, versions, conditional changes.

use insula_core::Limits;
use serde_json::{Value, json};

use crate::rest_house::{answer, house};

fn plan(name: &str) -> Value {
    json!({
        "name": name, "isolation": "row", "limits": Limits::default(), "features": {"search": true},
        "tier": {"name": "test", "weight": 1, "pool_guarantee": 0, "pool_cap": 50}
    })
}

#[tokio::test]
async fn pages_neither_miss_nor_repeat() {
    let house = house().await;
    for n in 0..5 {
        house.post("/v1/plans", &plan(&format!("page-{n}"))).await.is(201);
    }
    let (mut names, mut path) = (Vec::new(), "/v1/plans?limit=2".to_owned());
    loop {
        let page = house.get(&path).await;
        let items = page.is(200).body["items"].as_array().expect("items").clone();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|p| p["name"].as_str().expect("a name").to_owned()));
        match page.body["next"].as_str() {
            Some(next) => path = format!("/v1/plans?limit=2&cursor={next}"),
            None => break,
        }
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted, names, "in order, each once");
    assert!((0..5).all(|n| names.contains(&format!("page-{n}"))), "{names:?}");
}

#[tokio::test]
async fn changes_name_the_version_that_they_are_made_from() {
    let house = house().await;
    house.post("/v1/plans", &plan("versioned")).await.is(201);
    house.post("/v1/plans", &plan("versioned")).await.is_problem(409, "conflict");
    let etag = house.get("/v1/plans/versioned").await.is(200).header("etag").to_owned();
    assert_eq!(etag, "\"1\"");
    let patch = |etag: Option<&str>, body: Value| {
        let request = house.admin("PATCH", "/v1/plans/versioned").json(&body);
        answer(match etag {
            Some(etag) => request.header("if-match", etag),
            None => request,
        })
    };
    patch(None, json!({})).await.is_problem(428, "precondition-failed");
    patch(Some("W/\"1\""), json!({})).await.is_problem(412, "precondition-failed");
    patch(Some("one"), json!({})).await.is_problem(422, "invalid").names("If-Match");
    let changed = patch(Some(&etag), json!({"features": {"search": null, "seats": 3}})).await;
    assert_eq!(changed.is(200).body["features"], json!({"seats": 3}));
    assert_eq!(changed.header("etag"), "\"2\"");
    patch(Some(&etag), json!({"features": {"seats": 4}})).await.is_problem(412, "precondition-failed");
    patch(Some("*"), json!({"isolation": "schema"})).await.is(200);
    patch(Some("*"), json!({"tier": {"name": "t", "weight": 0, "pool_guarantee": 0, "pool_cap": 50}}))
        .await
        .is_problem(422, "invalid")
        .names("tier.weight");
    house.get("/v1/plans/unheard-of").await.is_problem(404, "not-found");
}

#[tokio::test]
async fn the_status_of_the_whole_is_told() {
    let house = house().await;
    let status = house.get("/v1/status").await;
    assert!(status.is(200).body["revision"].as_i64().expect("a number") >= 0);
    assert_eq!(status.body["audit_broken_at"], Value::Null);
    assert_eq!(house.get("/v1/migrations").await.is(200).body["items"].as_array().map(|_| ()), Some(()));
}
