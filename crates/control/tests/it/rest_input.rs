//! Bad input: a clear refusal that names the field, and nothing half made.

use serde_json::json;

use crate::rest_house::{answer, house};

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let house = house().await;
    let send =
        |body: &'static str| answer(house.admin("POST", "/v1/tenants").header("content-type", "application/json").body(body));
    send("{").await.is_problem(400, "invalid");
    send("").await.is_problem(400, "invalid");
    send("[]").await.is_problem(422, "invalid");
    send(r#"{"slug":"acme-1"}"#).await.is_problem(422, "invalid").names("plan");
    send(r#"{"slug":"acme-1","plan":"bronze","colour":"red"}"#).await.is_problem(422, "invalid").names("colour");
    send(r#"{"slug":"acme-1","plan":"bronze","settings":{"hue":1}}"#).await.is_problem(422, "invalid").names("settings.hue");
    send(r#"{"slug":"acme-1","plan":"bronze","isolation":"none"}"#).await.is_problem(422, "invalid").names("isolation");
    send(r#"{"slug":7,"plan":"bronze"}"#).await.is_problem(422, "invalid").names("slug");
    send(r#"{"slug":"www","plan":"bronze"}"#).await.is_problem(422, "invalid").names("slug");
    send("{\"slug\":\"acme-1\",\"plan\":\"bronze\",\"name\":\"\\ud800\"}").await.is_problem(400, "invalid");
    let plain = answer(house.admin("POST", "/v1/tenants").header("content-type", "text/plain").body("{}")).await;
    plain.is_problem(415, "invalid");
}

#[tokio::test]
async fn odd_characters_and_sql_in_every_field() {
    let house = house().await;
    for odd in ["a\0b", "a\u{1b}[2Jb", "a\u{202e}b", "a\u{ffff}b", "a\u{7f}b"] {
        let base = json!({"slug": "acme-2", "plan": "bronze"});
        for field in ["slug", "plan", "name", "admin_email", "region"] {
            let mut body = base.clone();
            body[field] = odd.into();
            house.post("/v1/tenants", &body).await.is_problem(422, "invalid").names(field);
        }
        let mut body = base.clone();
        body["settings"] = json!({"brand_name": odd});
        house.post("/v1/tenants", &body).await.is_problem(422, "invalid").names("settings.brand_name");
        house.post("/v1/keys", &json!({"name": odd, "scope": "read"})).await.is_problem(422, "invalid").names("name");
    }
    let sql = "x'); DROP TABLE tenant; --";
    for field in ["slug", "plan", "admin_email", "region"] {
        let mut body = json!({"slug": "acme-2", "plan": "bronze"});
        body[field] = sql.into();
        house.post("/v1/tenants", &body).await.is_problem(422, "invalid").names(field);
    }
    let encoded = "x%27%29%3B%20DROP%20TABLE%20tenant%3B%20--";
    assert_eq!(house.get(&format!("/v1/tenants?q={encoded}")).await.is(200).body["items"], json!([]));
    house.get(&format!("/v1/tenants/{encoded}")).await.is_problem(404, "not-found");
    house.get("/v1/tenants/a%00b").await.is_problem(404, "not-found");
    house.get("/v1/tenants/%ff").await.is_problem(404, "not-found");
    house.get("/v1/tenants?q=a%00b").await.is_problem(422, "invalid").names("q");
    house.get("/v1/audit?action=%00").await.is_problem(422, "invalid").names("action");
}

#[tokio::test]
async fn queries_that_are_not_what_they_should_be() {
    let house = house().await;
    house.get("/v1/tenants?color=red").await.is_problem(422, "invalid").names("color");
    house.get("/v1/tenants?limit=0").await.is_problem(422, "invalid").names("limit");
    house.get("/v1/tenants?limit=501").await.is_problem(422, "invalid").names("limit");
    house.get("/v1/tenants?limit=many").await.is_problem(422, "invalid").names("limit");
    house.get("/v1/tenants?state=asleep").await.is_problem(422, "invalid").names("state");
    house.get("/v1/tenants?cursor=mine").await.is_problem(422, "invalid").names("cursor");
    house.get("/v1/audit?cursor=mine").await.is_problem(422, "invalid").names("cursor");
    house.get("/v1/operations?tenant=nobody").await.is_problem(404, "not-found");
    house.get("/v1/operations/7").await.is_problem(404, "not-found");
    house
        .get("/v1/operations/00000000-0000-7000-8000-000000000000/events?wait=31")
        .await
        .is_problem(422, "invalid")
        .names("wait");
    house.get("/v1/lint?cell=main&tenant=x").await.is_problem(422, "invalid").names("tenant");
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let house = house().await;
    let two_megabytes = json!({"slug": "acme-3", "plan": "bronze", "name": "x".repeat(2 << 20)});
    house.post("/v1/tenants", &two_megabytes).await.is_problem(413, "too-large");
    let fifty = vec![b' '; 50 << 20];
    for path in ["/v1/tenants", "/v1/keys"] {
        let request = house.admin("POST", path).header("content-type", "application/json").body(fifty.clone());
        answer(request).await.is_problem(413, "too-large");
        let request = house.admin("POST", path).header("content-type", "application/json").header("idempotency-key", "large");
        answer(request.body(fifty.clone())).await.is_problem(413, "too-large");
    }
    answer(house.admin("PUT", "/v1/bundle").header("content-type", "application/json").body(fifty))
        .await
        .is_problem(413, "too-large");
}

#[tokio::test]
async fn a_request_id_of_the_callers_own_is_kept_when_harmless() {
    let house = house().await;
    let told = answer(house.admin("GET", "/v1/tenants/nobody").header("x-request-id", "trace-7")).await;
    assert_eq!(told.is_problem(404, "not-found").at("/request_id"), "trace-7");
    let told = answer(house.admin("GET", "/v1/tenants/nobody").header("x-request-id", "a b;c")).await;
    assert_ne!(told.is_problem(404, "not-found").at("/request_id"), "a b;c");
}
