//! The contract of the API, in every isolation mode.

use axum::http::Method;
use insula_testkit::Isolation;
use serde_json::{Value, json};

use crate::house::{House, Person};

const MODES: [Isolation; 3] = [Isolation::Row, Isolation::Schema, Isolation::Database];

#[tokio::test]
async fn the_contract_holds_in_every_isolation_mode() {
    let house = House::open().await;
    for mode in MODES {
        let ann = house.admin(&format!("contract-{mode}"), mode).await;
        documents(&ann).await;
        versions(&ann).await;
        search(&ann).await;
        dashboard(&ann).await;
        session(&ann).await;
    }
}

async fn documents(ann: &Person) {
    let made = ann.post("/api/documents", json!({"title": "First", "body": "Hello *world*", "tags": ["B", "a", "b"]})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json["id"].as_str().unwrap();
    let path = format!("/api/documents/{id}");
    assert_eq!(made.headers["location"], path.as_str());
    assert_eq!(made.headers["etag"], "\"1\"");
    assert_eq!(
        (&made.json["number"], &made.json["version"], &made.json["tags"]),
        (&json!("DOC-000001"), &json!(1), &json!(["a", "b"]))
    );

    let read = ann.get(&path).await;
    assert_eq!((read.status.as_u16(), &read.json), (200, &made.json));

    let changed = ann.patch(&path, json!({"title": "Second", "tags": ["c"]})).await;
    assert_eq!((changed.status.as_u16(), &changed.json["title"], &changed.json["version"]), (200, &json!("Second"), &json!(2)));
    assert_eq!((&changed.json["body"], &changed.json["tags"]), (&json!("Hello *world*"), &json!(["c"])));
    // No change, no version.
    assert_eq!(ann.patch(&path, json!({"title": "Second"})).await.json["version"], 2);
    ann.patch(&path, json!({"title": "x", "version": 1})).await.must_be_problem(409);
    assert_eq!(ann.patch(&path, json!({"body": "New", "version": 2})).await.json["version"], 3);
    let bearer = format!("Bearer {}", ann.token.as_ref().unwrap());
    let conditional = async |tag: &str, method: Method| {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("if-match", tag)];
        ann.raw(method, &path, &headers, json!({"title": "By tag"}).to_string()).await
    };
    conditional("\"2\"", Method::PATCH).await.must_be_problem(412);
    conditional("W/\"3\"", Method::PATCH).await.must_be_problem(412);
    assert_eq!(conditional("\"3\"", Method::PATCH).await.json["version"], 4);
    conditional("\"3\"", Method::DELETE).await.must_be_problem(412);
    assert_eq!(conditional("\"4\"", Method::DELETE).await.status, 204);
    ann.get(&path).await.must_be_problem(404);
    ann.delete(&path).await.must_be_problem(404);

    pages_of_documents(ann).await;
    same_source_once(ann).await;
}

async fn pages_of_documents(ann: &Person) {
    let mut written = vec![];
    for n in 0..5 {
        written.insert(0, json!(ann.write(&format!("Note {n}"), "text", if n % 2 == 0 { &["even"] } else { &[] }).await));
    }
    let mut seen: Vec<Value> = vec![];
    let mut path = "/api/documents?limit=2".to_owned();
    loop {
        let page = ann.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        seen.extend(page.json["items"].as_array().unwrap().iter().map(|item| item["id"].clone()));
        let Some(next) = page.json["next"].as_str() else { break };
        path = format!("/api/documents?limit=2&after={next}");
    }
    assert_eq!(seen, written);
    let even = ann.get("/api/documents?tag=EVEN").await;
    assert_eq!(even.json["items"].as_array().unwrap().len(), 3);
    let tags = ann.get("/api/tags").await;
    assert_eq!(tags.json["items"][0], json!({"tag": "even", "documents": 3}));
}

async fn same_source_once(ann: &Person) {
    let document = json!({"title": "Imported", "body": "x", "source": "a/b.md", "format": "plain"});
    assert_eq!(ann.post("/api/documents", document.clone()).await.status, 201);
    ann.post("/api/documents", document).await.must_be_problem(409);
}

async fn versions(ann: &Person) {
    let id = ann.write("One", "first body", &[]).await;
    let path = format!("/api/documents/{id}");
    ann.patch(&path, json!({"title": "Two", "body": "second body"})).await;
    let list = ann.get(&format!("{path}/versions")).await;
    let titles: Vec<_> =
        list.json["items"].as_array().unwrap().iter().map(|v| (v["version"].clone(), v["title"].clone())).collect();
    assert_eq!(titles, [(json!(2), json!("Two")), (json!(1), json!("One"))]);
    assert!(list.json["items"][0]["author"].as_str().unwrap().starts_with("admin@"));
    assert_eq!(ann.get(&format!("{path}/versions/1")).await.json["body"], "first body");
    for none in ["versions/3", "versions/0", "versions/x", "versions/99999999999"] {
        ann.get(&format!("{path}/{none}")).await.must_be_problem(404);
    }
    let restored = ann.post(&format!("{path}/versions/1/restore"), json!({})).await;
    assert_eq!((&restored.json["title"], &restored.json["version"]), (&json!("One"), &json!(3)));
    assert_eq!(ann.get(&format!("{path}/versions")).await.json["items"].as_array().unwrap().len(), 3);
    ann.post(&format!("{path}/versions/9/restore"), json!({})).await.must_be_problem(404);
}

async fn search(ann: &Person) {
    let best = ann.write("Aardvark care", "How an aardvark eats: aardvark ants.", &[]).await;
    ann.write("Animals", "<script>alert('x')</script> an aardvark & others \u{2}fake\u{3}", &[]).await;
    let found = ann.get("/api/search?q=aardvark").await;
    assert_eq!((found.status.as_u16(), &found.json["total"]), (200, &json!(2)), "{}", found.text);
    assert_eq!(found.json["items"][0]["id"], json!(best));
    let highlight = found.json["items"][1]["highlight"].as_str().unwrap();
    assert!(highlight.contains("<mark>aardvark</mark>") && highlight.contains("&amp; others"), "{highlight}");
    assert!(!highlight.contains("<script") && !highlight.contains("<mark>fake"), "{highlight}");
    assert_eq!(ann.get("/api/search?q=aardvark+-ants").await.json["total"], 1);
    assert_eq!(ann.get("/api/search?q=%22aardvark+ants%22").await.json["total"], 1);
    assert_eq!(ann.get("/api/search?q=nothing-of-the-sort").await.json, json!({"total": 0, "items": []}));
    assert_eq!(ann.get("/api/search?q=aardvark&limit=1&offset=1").await.json["items"].as_array().unwrap().len(), 1);
}

async fn dashboard(ann: &Person) {
    let dashboard = ann.get("/api/dashboard").await;
    assert_eq!(dashboard.status, 200, "{}", dashboard.text);
    let listed = ann.get("/api/documents?limit=200").await.json["items"].as_array().unwrap().len();
    assert_eq!((&dashboard.json["documents"], &dashboard.json["users"]), (&json!(listed), &json!(1)));
    let days = dashboard.json["days"].as_array().unwrap();
    assert_eq!(days.len(), 30);
    assert_eq!(days[29]["created"], json!(listed));
    // What is counted is remembered, and forgotten with each change.
    let documents = async || ann.get("/api/dashboard").await.json["documents"].as_u64().unwrap();
    let new = ann.post("/api/documents", json!({"title": "Counted", "body": ""})).await;
    assert_eq!((new.status.as_u16(), documents().await), (201, listed as u64 + 1));
    assert_eq!(ann.delete(&format!("/api/documents/{}", new.json["id"].as_str().unwrap())).await.status, 204);
    assert_eq!(documents().await, listed as u64);
}

async fn session(ann: &Person) {
    let who = ann.get("/api/session").await;
    assert_eq!((who.status.as_u16(), &who.json["user"]["role"]), (200, &json!("admin")));
    assert_eq!(ann.delete("/api/session").await.status, 204);
    ann.get("/api/session").await.must_be_problem(401);
}

#[tokio::test]
async fn numbers_have_no_gap_under_concurrency() {
    let house = House::open().await;
    for mode in MODES {
        let ann = house.admin(&format!("numbers-{mode}"), mode).await;
        ann.post("/api/documents", json!({"title": " ", "body": ""})).await.must_name("title");
        let writes = (0..24).map(|n| {
            let ann = ann.clone();
            tokio::spawn(async move { ann.post("/api/documents", json!({"title": format!("{n}"), "body": ""})).await })
        });
        let mut numbers = vec![];
        for write in writes.collect::<Vec<_>>() {
            let made = write.await.unwrap();
            assert_eq!(made.status, 201, "{}", made.text);
            numbers.push(made.json["number"].as_str().unwrap().to_owned());
        }
        numbers.sort();
        assert_eq!(numbers, (1..=24).map(|n| format!("DOC-{n:06}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn health_needs_no_tenant() {
    let house = House::open().await;
    let anybody = Person { app: house.app.clone(), host: "10.1.2.3".to_owned(), token: None };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(anybody.get(path).await.status, 200);
    }
}
