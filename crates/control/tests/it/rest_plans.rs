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

/// A switch that is set to a word would count as off, without a word to whoever set it.
#[tokio::test]
async fn a_feature_is_of_one_type_wherever_it_is_said() {
    let house = house().await;
    let with = |name: &str, features: Value| {
        let mut plan = plan(name);
        plan["features"] = features;
        plan
    };
    house.post("/v1/plans", &with("typed", json!({"typed_switch": true, "typed_number": 3, "typed_word": "a"}))).await.is(201);
    let patch = |path: &str, features: Value| {
        let request = house.admin("PATCH", path).header("if-match", "*");
        answer(request.json(&json!({"features": features})))
    };
    for (features, allowed) in [
        (json!({"typed_switch": "maybe"}), "typed_switch: a switch, true or false"),
        (json!({"typed_switch": 1}), "typed_switch: a switch, true or false"),
        (json!({"typed_number": "many"}), "typed_number: a whole number"),
        (json!({"typed_word": false}), "typed_word: a word"),
    ] {
        for refused in [
            patch("/v1/plans/typed", features.clone()).await,
            house.post("/v1/plans", &with("typed-too", features.clone())).await,
            house.post("/v1/tenants", &json!({"slug": "typed", "plan": "typed", "features": features.clone()})).await,
        ] {
            refused.is_problem(422, "invalid").names("features");
            assert!(refused.body.to_string().contains(allowed), "{}", refused.body);
        }
    }
    // What no plan has is not known; what a plan has not any more is known no more.
    patch("/v1/plans/typed", json!({"typed_switch": null, "typed_later": "a"})).await.is(200);
    patch("/v1/plans/typed", json!({"typed_switch": 1, "typed_number": 4})).await.is(200);
}

#[tokio::test]
async fn the_status_of_the_whole_is_told() {
    let house = house().await;
    let status = house.get("/v1/status").await;
    assert!(status.is(200).body["revision"].as_i64().expect("a number") >= 0);
    assert_eq!(status.body["audit_broken_at"], Value::Null);
    assert_eq!(house.get("/v1/migrations").await.is(200).body["items"].as_array().map(|_| ()), Some(()));
}
