//! Who may log in: admins decide, and the plan says how many.

use axum::http::Method;
use insula_testkit::Isolation;
use serde_json::json;

use crate::house::{Answer, House, PASSWORD, Person};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn add(admin: &Person, email: &str) -> Answer {
    admin.post("/api/users", json!({"email": email, "role": "editor", "password": PASSWORD})).await
}

async fn log_in(person: &Person, email: &str, password: &str) -> Answer {
    person.nobody().post("/api/session", json!({"email": email, "password": password})).await
}

/// A tenant on the plan with five users, and its admin.
async fn bronze(house: &House, slug: &str, isolation: Isolation) -> Person {
    house.cell.tenant(slug, "bronze", isolation).await;
    house.person(slug, "admin").await
}

#[tokio::test]
async fn an_admin_adds_changes_and_removes_users() {
    let house = House::open().await;
    let ann = house.admin("crew", Isolation::Schema).await;
    let made = ann.post("/api/users", json!({"email": " Bob@Crew.example ", "role": "reader"})).await;
    assert_eq!((made.status.as_u16(), made.headers["cache-control"].as_bytes()), (201, b"no-store".as_slice()), "{}", made.text);
    let password = made.json["password"].as_str().expect("made up").to_owned();
    assert!(password.len() >= 20 && !ann.get("/api/users").await.text.contains(&password));
    let opened = log_in(&ann, "bob@crew.example", &password).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    let bob = Person { token: opened.json["token"].as_str().map(str::to_owned), ..ann.clone() };
    bob.post("/api/documents", json!({"title": "x", "body": "y", "tags": []})).await.must_be_problem(403);
    bob.get("/api/users").await.must_be_problem(403);

    let path = format!("/api/users/{}", made.json["id"].as_str().expect("an id"));
    let changed = ann.patch(&path, json!({"role": "editor"})).await;
    assert_eq!((changed.status.as_u16(), changed.json["role"].as_str()), (200, Some("editor")));
    let id = bob.write("Bob's", "words", &[]).await;

    add(&ann, "bob@crew.example").await.must_be_problem(409);
    for (body, field) in [
        (json!({"email": "nobody", "role": "reader"}), "email"),
        (json!({"email": "a b@c", "role": "reader"}), "email"),
        (json!({"email": "İ@crew.example", "role": "reader"}), "email"),
        (json!({"email": "c@crew.example", "role": "owner"}), "role"),
        (json!({"email": "c@crew.example", "role": "reader", "password": "short"}), "password"),
        (json!({"email": "c@crew.example", "role": "reader", "tenant": "other"}), "tenant"),
    ] {
        ann.post("/api/users", body).await.must_name(field);
    }

    assert_eq!(ann.delete(&path).await.status, 204);
    bob.get("/api/documents").await.must_be_problem(401);
    assert_eq!(ann.get(&format!("/api/documents/{id}")).await.status, 200, "what he wrote stays");
    ann.delete(&path).await.must_be_problem(404);
    ann.delete("/api/users/none").await.must_be_problem(404);
}

#[tokio::test]
async fn a_workspace_keeps_an_admin() {
    let house = House::open().await;
    let ann = house.admin("crown", Isolation::Row).await;
    let own = ann.get("/api/users").await.json["items"][0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/users/{own}");
    ann.delete(&path).await.must_be_problem(409);
    ann.patch(&path, json!({"role": "reader"})).await.must_be_problem(409);
    assert_eq!(ann.post("/api/users", json!({"email": "bob@crown.example", "role": "admin"})).await.status, 201);
    // Both at once: each sees the other go.
    let users = ann.get("/api/users").await.json["items"].clone();
    let gone = users.as_array().expect("users").iter().map(|user| {
        let (ann, path) = (ann.clone(), format!("/api/users/{}", user["id"].as_str().expect("an id")));
        tokio::spawn(async move { ann.patch(&path, json!({"role": "reader"})).await.status.as_u16() })
    });
    let mut statuses = vec![];
    for task in gone.collect::<Vec<_>>() {
        statuses.push(task.await.expect("asked"));
    }
    statuses.sort_unstable();
    // The second is refused: as the last admin, or because it is none any more.
    assert!(statuses[0] == 200 && [403, 409].contains(&statuses[1]), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_plan_is_full_when_it_is_full_however_many_ask_at_once() {
    let house = House::open().await;
    for isolation in [Isolation::Row, Isolation::Schema, Isolation::Database] {
        let slug = format!("full-{isolation}");
        let ann = bronze(&house, &slug, isolation).await;
        assert_eq!(ann.get("/api/users").await.json["limit"], 5);
        for n in 0..3 {
            assert_eq!(add(&ann, &format!("user-{n}@{slug}.example")).await.status, 201);
        }
        // One place is left, and four want it.
        let asked = (3..7).map(|n| {
            let (ann, email) = (ann.clone(), format!("user-{n}@{slug}.example"));
            tokio::spawn(async move { add(&ann, &email).await })
        });
        let mut added = 0;
        for task in asked.collect::<Vec<_>>() {
            let answer = task.await.expect("asked");
            if answer.status == 201 {
                added += 1;
                continue;
            }
            answer.must_be_problem(429);
            assert!(answer.json["type"].as_str().is_some_and(|kind| kind.ends_with("/limited")), "{}", answer.text);
            assert!(answer.json["detail"].as_str().is_some_and(|text| text.contains("room for 5 users")), "{}", answer.text);
        }
        let users = ann.get("/api/users").await;
        assert_eq!((added, users.json["items"].as_array().map(Vec::len)), (1, Some(5)), "{isolation}: {}", users.text);
        let last = users.json["items"][4]["id"].as_str().expect("an id").to_owned();
        assert_eq!(ann.delete(&format!("/api/users/{last}")).await.status, 204);
        assert_eq!(add(&ann, &format!("again@{slug}.example")).await.status, 201, "there is room again");
    }
}

#[tokio::test]
async fn a_tenant_s_own_limit_counts_and_another_s_users_do_not() {
    let house = House::open().await;
    let (ann, eve) = (bronze(&house, "small", Isolation::Row).await, bronze(&house, "large", Isolation::Row).await);
    let catalog = house.cell.catalog().await;
    let raise = r#"UPDATE catalog.tenant SET limits = '{"max_users": 6}', version = version + 1 WHERE slug = 'large'"#;
    sqlx::query(raise).execute(&catalog).await.expect("raised");
    catalog.close().await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while eve.get("/api/users").await.json["limit"] != 6 {
        assert!(tokio::time::Instant::now() < deadline, "the limit never arrived");
        tokio::task::yield_now().await;
    }
    for n in 0..5 {
        assert_eq!(add(&eve, &format!("user-{n}@large.example")).await.status, 201);
    }
    add(&eve, "more@large.example").await.must_be_problem(429);
    assert_eq!(add(&ann, "one@small.example").await.status, 201);
}

#[tokio::test]
async fn the_page_adds_and_removes_and_says_what_is_wrong() {
    let house = House::open().await;
    let ann = bronze(&house, "paged", Isolation::Row).await;
    let reader = house.person("paged", "reader").await;
    let token = ann.token.clone().expect("a token");
    let cookie = format!("session={token}");
    let form = acmedocs::sessions::Token::parse(&token).expect("a token").form_secret();
    let send = async |path: &str, body: String| ann.raw(Method::POST, path, &[("cookie", &cookie), FORM], body).await;
    let page = ann.raw(Method::GET, "/users", &[("cookie", &cookie)], "").await;
    assert!(page.status == 200 && page.text.contains("2 of 5") && page.text.contains("reader@paged.example"), "{}", page.text);
    let made = send("/users", format!("form={form}&email=bob%40paged.example&role=editor")).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let password = made.text.split("<code>").nth(1).and_then(|rest| rest.split('<').next()).expect("a password");
    assert_eq!(log_in(&ann, "bob@paged.example", password).await.status, 200);
    let wrong = send("/users", format!("form={form}&email=%3Cb%3Ex&role=editor")).await;
    assert!(wrong.status == 422 && wrong.text.contains("no email address") && !wrong.text.contains("<b>x"), "{}", wrong.text);
    let forged = send("/users", "email=eve%40paged.example&role=admin".to_owned()).await;
    assert_eq!(forged.status, 403);
    for n in 0..2 {
        assert_eq!(add(&ann, &format!("user-{n}@paged.example")).await.status, 201);
    }
    let full = send("/users", format!("form={form}&email=late%40paged.example&role=editor")).await;
    assert!(full.status == 429 && full.text.contains("room for 5 users"), "{}", full.text);
    let users = ann.get("/api/users").await.json["items"].clone();
    let bob = users.as_array().expect("users").iter().find(|u| u["email"] == "bob@paged.example").expect("bob")["id"].clone();
    let gone = send(&format!("/users/{}/remove", bob.as_str().expect("an id")), format!("form={form}")).await;
    assert_eq!((gone.status.as_u16(), gone.headers["location"].as_bytes()), (303, b"/users".as_slice()));
    let others = format!("session={}", reader.token.clone().expect("a token"));
    let seen = ann.raw(Method::GET, "/users", &[("cookie", &others)], "").await;
    assert!(seen.status == 403 && !seen.text.contains("user-0@"), "{}", seen.text);
    assert!(!ann.raw(Method::GET, "/documents", &[("cookie", &others)], "").await.text.contains("href=\"/users\""));
}
