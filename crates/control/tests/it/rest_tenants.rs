//! Tenants over REST, from birth to deletion.

use insula_api::key::Scope;
use insula_testkit::server;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::rest_house::{Answer, House, answer, house};

/// Hands in an application with one table, once for all tests.
pub(crate) async fn bundle(house: &House) {
    let bundle = json!({
        "migrations": [{"version": 1, "name": "notes", "sql":
            "CREATE TABLE person (email text NOT NULL, hash text NOT NULL); SELECT insula.tenant_table('person');"}],
        "seed": "INSERT INTO person (email, hash) SELECT $1::text, $2::text WHERE $3::text <> '' AND $4::jsonb IS NOT NULL"
    });
    let put = answer(house.admin("PUT", "/v1/bundle?wait=true").json(&bundle)).await;
    assert!([200, 202].contains(&put.status.as_u16()), "{}", put.text);
    assert_eq!(put.body["schema_version"], 1);
}

/// Waits until the house has prepared what it prepares at its start.
pub(crate) async fn ready(house: &House) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while answer(house.bare("GET", "/readyz")).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "not ready within a minute");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn create(house: &House, slug: &str, plan: &str) -> Answer {
    house.post("/v1/tenants?wait=true", &json!({"slug": slug, "plan": plan, "name": format!("The {slug}")})).await
}

#[tokio::test]
async fn a_tenant_is_made_found_changed_paused_and_deleted() {
    let house = house().await;
    ready(house).await;
    bundle(house).await;
    let made = create(house, "rest-life", "bronze").await;
    let id = made.is(201).at("/id").to_owned();
    assert_eq!((made.at("/state"), made.at("/isolation"), made.at("/placement/cell")), ("active", "row", "main"));
    assert_eq!(made.body["placement"]["epoch"], 1);
    assert_eq!(made.at("/admin/email"), "admin@rest-life.localhost");
    assert!(made.at("/admin/password").len() >= 16);
    assert_eq!(made.header("location"), format!("/v1/tenants/{id}"));
    assert!(made.body.get("no").is_none(), "the surrogate is not told");

    let found = house.get("/v1/tenants/rest-life").await;
    assert_eq!((found.is(200).at("/id"), house.get(&format!("/v1/tenants/{id}")).await.at("/slug")), (id.as_str(), "rest-life"));
    let etag = found.header("etag").to_owned();
    let change = json!({"name": "Renamed", "plan": "silver", "settings": {"color": "#112233"}, "features": {"seats": 5},
        "limits": {"max_users": 7}});
    let patch =
        |etag: String, body: Value| answer(house.admin("PATCH", "/v1/tenants/rest-life").header("if-match", etag).json(&body));
    let changed = patch(etag.clone(), change.clone()).await;
    assert_eq!(
        (changed.is(200).at("/name"), changed.at("/plan"), changed.at("/settings/color")),
        ("Renamed", "silver", "#112233")
    );
    assert_eq!((&changed.body["features"], &changed.body["limits"]), (&json!({"seats": 5}), &json!({"max_users": 7})));
    patch(etag, change).await.is_problem(412, "precondition-failed");
    let reset = json!({"settings": {"color": null}, "features": {"seats": null}, "limits": {"max_users": null}});
    let reset = patch("*".into(), reset).await;
    assert_eq!((&reset.is(200).body["features"], &reset.body["limits"]), (&json!({}), &json!({})));
    assert!(reset.body["settings"].get("color").is_none_or(Value::is_null));
    let trial = json!({"exports": {"value": 3, "until": "2030-01-01T00:00:00Z"}});
    assert_eq!(patch("*".into(), json!({"features": trial})).await.is(200).body["features"], trial);
    patch("*".into(), json!({"features": {"exports": {"value": 3, "until": "soon"}}})).await.is_problem(422, "invalid");
    let past = json!({"exports": {"value": 3, "until": "2020-01-01T00:00:00Z"}});
    let refused = patch("*".into(), json!({"features": past})).await;
    assert!(
        refused.is_problem(422, "invalid").names("features").body.to_string().contains("exports: until: a time in the future")
    );
    house.post("/v1/tenants", &json!({"slug": "rest-past", "plan": "bronze", "features": past})).await.is_problem(422, "invalid");
    // One that has ended since is in nobody's way.
    let mut catalog = PgConnection::connect(&server().await.admin_url(&house.catalog)).await.expect("the catalog");
    let ended = "UPDATE catalog.tenant SET features = $1 WHERE slug = 'rest-life'";
    sqlx::query(ended).bind(&past).execute(&mut catalog).await.expect("written");
    patch("*".into(), json!({"features": {"seats": 5}})).await.is(200);
    patch("*".into(), json!({"features": {"exports": null, "seats": null}})).await.is(200);
    patch("*".into(), json!({"limits": {"max_unicorns": 1}})).await.is_problem(422, "invalid").names("limits");
    patch("*".into(), json!({"plan": "adamantium"})).await.is_problem(422, "invalid").names("plan");

    house.post("/v1/tenants/rest-life/suspend?wait=true", &json!({})).await.is(200);
    assert_eq!(house.get("/v1/tenants/rest-life").await.at("/state"), "suspended");
    house.post("/v1/tenants/rest-life/grants", &json!({"pid": 1})).await.is_problem(409, "conflict");
    house.post("/v1/tenants/rest-life/resume?wait=true", &json!({})).await.is(200);
    assert_eq!(house.get("/v1/tenants/rest-life").await.at("/state"), "active");
    answer(house.admin("DELETE", "/v1/tenants/rest-life?wait=true")).await.is(200);
    assert_eq!(house.get("/v1/tenants/rest-life").await.at("/state"), "deleted");
    let listed = house.get("/v1/tenants?q=rest-life").await;
    assert_eq!(listed.is(200).body["items"], json!([]), "deleted ones are left out");
    assert_eq!(house.get("/v1/tenants?q=rest-life&state=deleted").await.body["items"].as_array().map(Vec::len), Some(1));
    let log = house.get(&format!("/v1/audit?tenant={id}")).await;
    assert!(log.is(200).body["items"].as_array().expect("entries").iter().all(|e| e["actor"] == "test-admin"), "{}", log.text);
}

#[tokio::test]
async fn an_operation_is_followed_to_its_end() {
    let house = house().await;
    ready(house).await;
    bundle(house).await;
    let made = answer(
        house
            .bare("POST", "/v1/tenants")
            .bearer_auth(house.key(Scope::Provisioner))
            .json(&json!({"slug": "rest-follow", "plan": "bronze", "isolation": "schema"})),
    )
    .await;
    let operation = made.is(202).at("/operation").to_owned();
    let (mut after, mut seen) = (0, Vec::new());
    let last = loop {
        let news = house.get(&format!("/v1/operations/{operation}/events?after={after}&wait=20")).await;
        let events = news.is(200).body["events"].as_array().expect("events").clone();
        after = events.last().map_or(after, |e| e["seq"].as_i64().expect("a number"));
        seen.extend(events.iter().map(|e| e["seq"].as_i64().expect("a number")));
        if ["done", "failed"].contains(&news.at("/operation/state")) {
            break news;
        }
    };
    assert_eq!(last.at("/operation/state"), "done", "{}", last.text);
    assert!(seen.windows(2).all(|w| w[0] < w[1]) && !seen.is_empty());
    let listed = house.get("/v1/operations?tenant=rest-follow&state=done").await;
    assert_eq!(listed.is(200).body["items"][0]["id"], operation.as_str());
    assert_eq!(listed.body["items"][0]["created_by"], "test-provisioner");
    let placed = house.get("/v1/tenants/rest-follow").await;
    assert!(placed.at("/placement/schema").starts_with('s'), "{}", placed.text);
}

#[tokio::test]
async fn the_password_is_told_once_and_a_slug_is_taken_once() {
    let house = house().await;
    ready(house).await;
    bundle(house).await;
    let body = json!({"slug": "rest-once", "plan": "bronze"});
    let send = || answer(house.admin("POST", "/v1/tenants?wait=true").header("idempotency-key", "rest-once").json(&body));
    let (first, second) = (send().await, send().await);
    assert!(first.is(201).body["admin"]["password"].is_string());
    assert_eq!(
        second.is(201).body["admin"],
        json!({"email": "admin@rest-once.localhost", "password": null, "password_withheld": true})
    );
    assert_eq!(second.at("/id"), first.at("/id"));
    let password = first.at("/admin/password");
    let everywhere = [house.get("/v1/audit?limit=500").await, house.get("/v1/operations?limit=500").await];
    assert!(everywhere.iter().all(|told| !told.text.contains(password) && !told.text.contains("$argon2")));
    create(house, "rest-once", "bronze").await.is_problem(409, "conflict");

    let all = futures_util::future::join_all((0..6).map(|_| create(house, "rest-race", "bronze"))).await;
    assert_eq!(all.iter().filter(|a| a.status == 201).count(), 1);
    all.iter().filter(|a| a.status != 201).for_each(|a| {
        a.is_problem(409, "conflict");
    });
    create(house, "rest-unknown-plan", "adamantium").await.is_problem(422, "invalid").names("plan");
    house.get("/v1/tenants/rest-unknown-plan").await.is_problem(404, "not-found");
}

#[tokio::test]
async fn grants_and_domains_and_lint() {
    let house = house().await;
    ready(house).await;
    bundle(house).await;
    create(house, "rest-doors", "gold").await.is(201);
    let grant = house.post("/v1/tenants/rest-doors/grants", &json!({"pid": 4711})).await;
    assert_eq!(grant.is(201).at("/grant").split('.').count(), 7);
    house.post("/v1/tenants/rest-doors/grants", &json!({"pid": 0})).await.is_problem(422, "invalid").names("pid");
    let log = house.get("/v1/audit?action=db.grant&tenant=rest-doors").await;
    assert_eq!(log.is(200).body["items"][0]["detail"]["pid"], 4711);
    assert!(!log.text.contains(grant.at("/grant")), "a grant is in the log");

    house.post("/v1/tenants/rest-doors/domains", &json!({"host": "Docs.Rest-Doors.example"})).await.is(201);
    house.post("/v1/tenants/rest-doors/domains", &json!({"host": "docs.rest-doors.example"})).await.is_problem(409, "conflict");
    house.post("/v1/tenants/rest-doors/domains", &json!({"host": "no host"})).await.is_problem(422, "invalid").names("host");
    let listed = house.get("/v1/tenants/rest-doors/domains").await;
    assert_eq!(listed.is(200).body["items"][0]["host"], "docs.rest-doors.example");
    assert_eq!(listed.body["items"][0]["verified_at"], Value::Null);
    assert_eq!(listed.body["items"][0]["proof"]["name"], "_insula-challenge.docs.rest-doors.example");
    house.post("/v1/tenants/rest-doors/domains/no host/verify", &json!({})).await.is_problem(404, "not-found");
    answer(house.admin("DELETE", "/v1/tenants/rest-doors/domains/docs.rest-doors.example")).await.is(204);
    answer(house.admin("DELETE", "/v1/tenants/rest-doors/domains/docs.rest-doors.example")).await.is_problem(404, "not-found");

    let lint = house.get("/v1/lint?tenant=rest-doors").await;
    assert_eq!(lint.is(200).body["clean"], true, "{}", lint.text);
}

#[tokio::test]
async fn cells_are_registered_and_drained() {
    let house = house().await;
    let body = json!({"name": "spare", "host": "192.0.2.1", "dedicated": true, "labels": ["ssd"]});
    let made = house.post("/v1/cells", &body).await;
    assert_eq!((made.is(201).at("/state"), made.at("/provider"), made.at("/host")), ("free", "registered", "192.0.2.1"));
    house.post("/v1/cells", &body).await.is_problem(409, "conflict");
    let found = house.get("/v1/cells/spare").await;
    assert!(found.is(200).header("etag").starts_with('"') && !found.text.contains("admin_role"));
    house.post("/v1/cells/spare/drain", &json!({})).await.is_problem(409, "conflict");
    house.post("/v1/cells/nowhere/drain", &json!({})).await.is_problem(404, "not-found");
    house.post("/v1/cells", &json!({"name": "odd", "host": "h", "port": 70000})).await.is_problem(422, "invalid").names("port");
}
