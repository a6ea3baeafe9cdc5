//! `Idempotency-Key`: done once, answered alike, without the secret.

use insula_api::key::Scope;
use serde_json::{Value, json};

use crate::rest_house::{Answer, answer, house};

async fn create(key: &str, name: &str) -> Answer {
    let body = json!({"name": name, "scope": "read"});
    answer(house().await.admin("POST", "/v1/keys").header("idempotency-key", key).json(&body)).await
}

async fn keys_named(name: &str) -> usize {
    let list = house().await.get("/v1/keys?limit=500").await;
    list.is(200).body["items"].as_array().expect("keys").iter().filter(|k| k["name"] == name).count()
}

#[tokio::test]
async fn the_same_again_is_answered_alike_without_its_secret() {
    let first = create("again", "idempotent").await;
    let second = create("again", "idempotent").await;
    assert_eq!(first.is(201).body["secret_withheld"], false);
    assert!(first.at("/secret").starts_with("ik_"));
    assert_eq!((second.is(201).at("/id"), second.header("idempotency-replayed")), (first.at("/id"), "true"));
    assert_eq!((&second.body["secret"], &second.body["secret_withheld"]), (&Value::Null, &json!(true)));
    assert_eq!(keys_named("idempotent").await, 1);
}

#[tokio::test]
async fn another_request_under_the_key_is_refused() {
    create("taken", "idempotent-one").await.is(201);
    create("taken", "idempotent-two").await.is_problem(422, "invalid").names("Idempotency-Key");
    assert_eq!(keys_named("idempotent-two").await, 0);
    create("", "idempotent-three").await.is_problem(422, "invalid").names("Idempotency-Key");
    create(&"x".repeat(201), "idempotent-three").await.is_problem(422, "invalid").names("Idempotency-Key");
}

#[tokio::test]
async fn keys_of_two_callers_do_not_meet_and_refusals_are_not_kept() {
    let house = house().await;
    let other = house.post("/v1/keys", &json!({"name": "other-admin", "scope": "admin"})).await.is(201).at("/secret").to_owned();
    create("shared", "mine").await.is(201);
    let body = json!({"name": "theirs", "scope": "read"});
    answer(house.bare("POST", "/v1/keys").bearer_auth(other).header("idempotency-key", "shared").json(&body)).await.is(201);
    let denied =
        house.bare("POST", "/v1/keys").bearer_auth(house.key(Scope::Read)).header("idempotency-key", "later").json(&body);
    answer(denied).await.is_problem(403, "denied");
    create("later-2", "").await.is_problem(422, "invalid").names("name");
    create("later-2", "").await.is_problem(422, "invalid").names("name");
    create("later-2", "now-right").await.is(201);
}

#[tokio::test]
async fn many_at_once_do_it_once() {
    let all = futures_util::future::join_all((0..8).map(|_| create("at-once", "idempotent-at-once"))).await;
    for told in &all {
        match told.status.as_u16() {
            201 => {}
            409 => assert_eq!(told.is_problem(409, "conflict").header("retry-after"), "1"),
            other => panic!("{other}: {}", told.text),
        }
    }
    assert_eq!(all.iter().filter(|a| a.at("/secret").starts_with("ik_")).count(), 1, "the secret is told once");
    assert_eq!(keys_named("idempotent-at-once").await, 1);
}
