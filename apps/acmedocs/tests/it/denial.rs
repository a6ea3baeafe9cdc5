//! Nobody reaches what is another's: a case for every route, and a failure when a route has none.

use std::collections::BTreeSet;

use acmedocs::{api, pages};
use axum::http::Method;
use insula_testkit::{Isolation, TenantState};
use serde_json::json;

use crate::house::{Answer, House, Person};

/// Methods and paths of the victim's things. `{id}` and `{version}` stand for theirs.
const API: &[(&str, &str, Denial)] = &[
    ("GET", "/api/session", Denial::Token),
    ("POST", "/api/session", Denial::Password),
    ("DELETE", "/api/session", Denial::Token),
    ("GET", "/api/documents", Denial::Unseen),
    ("POST", "/api/documents", Denial::Role),
    ("GET", "/api/documents/{id}", Denial::Id),
    ("PATCH", "/api/documents/{id}", Denial::IdAndRole),
    ("DELETE", "/api/documents/{id}", Denial::IdAndRole),
    ("GET", "/api/documents/{id}/versions", Denial::Id),
    ("GET", "/api/documents/{id}/versions/{version}", Denial::Id),
    ("POST", "/api/documents/{id}/versions/{version}/restore", Denial::IdAndRole),
    ("GET", "/api/tags", Denial::Unseen),
    ("GET", "/api/search", Denial::Unseen),
    ("GET", "/api/dashboard", Denial::Unseen),
    ("GET", "/api/digests", Denial::Unseen),
    ("GET", "/api/digests/{day}", Denial::Id),
    ("GET", "/api/exports", Denial::Unseen),
    ("POST", "/api/exports", Denial::Role),
    ("GET", "/api/exports/{id}", Denial::Id),
    ("DELETE", "/api/exports/{id}", Denial::IdAndRole),
    ("GET", "/api/users", Denial::UnseenAndRole),
    ("POST", "/api/users", Denial::Role),
    ("PATCH", "/api/users/{id}", Denial::IdAndRole),
    ("DELETE", "/api/users/{id}", Denial::IdAndRole),
    ("GET", "/api/webhooks", Denial::UnseenAndRole),
    ("POST", "/api/webhooks", Denial::Role),
    ("PATCH", "/api/webhooks/{id}", Denial::IdAndRole),
    ("DELETE", "/api/webhooks/{id}", Denial::IdAndRole),
    ("POST", "/api/webhooks/{id}/secret", Denial::IdAndRole),
    ("POST", "/api/webhooks/{id}/test", Denial::IdAndRole),
];

/// What a route must refuse, besides a missing and a foreign token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Denial {
    /// Nothing more.
    Token,
    /// Another tenant's credentials.
    Password,
    /// It shows nothing of another tenant's.
    Unseen,
    /// A role that may not write.
    Role,
    /// Another tenant's id: 404.
    Id,
    /// Shows nothing of another tenant's, and to this role nothing at all.
    UnseenAndRole,
    /// Both a role and an id.
    IdAndRole,
}

/// Pages that show the same to everybody who knows the host.
const OPEN_PAGES: &[(&str, &str)] = &[
    ("GET", "/"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("GET", "/assets/style.css"),
    ("GET", "/assets/brand.css"),
    ("GET", "/assets/icon.svg"),
];

/// Pages that open with a signed link, whoever comes: tried in `exports.rs`.
const LINKS: &[(&str, &str)] = &[("GET", "/exports/{id}/file")];

fn of(routes: &[(&'static str, &[&'static str])]) -> BTreeSet<(&'static str, &'static str)> {
    routes.iter().flat_map(|(path, methods)| methods.iter().map(|method| (*method, *path))).collect()
}

#[test]
fn every_route_has_a_denial_case() {
    let covered: BTreeSet<_> = API.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(covered, of(api::ROUTES), "a route of the API has no denial case, or a case has no route");
    // Pages are covered as a whole, below: what is not open must send strangers to the log-in.
    assert!(OPEN_PAGES.iter().all(|page| of(pages::ROUTES).contains(page)));
}

/// The lists above are of use only when they are what the router has.
#[tokio::test]
async fn the_lists_of_routes_are_the_router_s() {
    let house = House::open().await;
    house.tenant("routes", Isolation::Row).await;
    let anybody = Person { app: house.app.clone(), host: "routes.localhost".to_owned(), token: None };
    for (path, methods) in api::ROUTES.iter().chain(pages::ROUTES) {
        let path = some(path, "0");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = anybody.send(method.parse().unwrap(), &path, None).await;
            assert_eq!(answer.status != 405, methods.contains(&method), "{method} {path}: {} {}", answer.status, answer.text);
        }
    }
    let source =
        [include_str!("../../src/api/mod.rs"), include_str!("../../src/pages/mod.rs"), include_str!("../../src/pages/assets.rs")];
    let routed: usize = source.iter().map(|text| text.matches(".route(\"").count()).sum();
    assert_eq!(routed, api::ROUTES.len() + pages::ROUTES.len(), "a route is missing in ROUTES");
}

/// A path of a route.
fn some(path: &str, id: &str) -> String {
    path.replace("{id}", id).replace("{day}", id).replace("{version}", "1")
}

fn leaks(answer: &Answer) -> bool {
    answer.text.contains("victims-secret")
}

#[tokio::test]
async fn another_tenant_reaches_nothing_by_the_api() {
    let house = House::open().await;
    // Attacker and victim in every pairing of modes that share something, and some that do not.
    let pairs = [
        (Isolation::Row, Isolation::Row),
        (Isolation::Row, Isolation::Schema),
        (Isolation::Schema, Isolation::Schema),
        (Isolation::Schema, Isolation::Row),
        (Isolation::Database, Isolation::Row),
        (Isolation::Database, Isolation::Database),
    ];
    for (i, (attackers, victims)) in pairs.into_iter().enumerate() {
        let mallory = house.admin(&format!("mallory-{i}"), attackers).await;
        let victim = house.admin(&format!("victim-{i}"), victims).await;
        let reader = house.person(&format!("victim-{i}"), "reader").await;
        let id = victim.write("victims-secret title", "victims-secret body", &["victims-secret"]).await;
        let secret = json!({"email": "victims-secret@victim.example", "role": "editor"});
        assert_eq!(victim.post("/api/users", secret).await.status, 201);
        let users = victim.get("/api/users").await;
        let user = users.json["items"][0]["id"].as_str().unwrap();
        let webhook = victim.post("/api/webhooks", json!({"url": "https://victims-secret.example/in"})).await;
        let webhook = webhook.json["id"].as_str().unwrap();
        let export = victim.post("/api/exports", json!({"format": "zip"})).await;
        let export = export.json["id"].as_str().unwrap();
        assert_eq!(victim.post("/test/age", json!(24)).await.status, 200);
        assert_eq!(victim.send(Method::POST, "/test/digest", None).await.json, 1);
        let digest = victim.get("/api/digests").await;
        assert!(leaks(&digest), "{}", digest.text);
        let day = digest.json["items"][0]["day"].as_str().unwrap().to_owned();
        for (method, path, denial) in API {
            let id = match path.split('/').nth(2) {
                Some("users") => user,
                Some("exports") => export,
                Some("webhooks") => webhook,
                Some("digests") => &day,
                _ => id.as_str(),
            };
            every_refusal(&Case { method, path, denial: *denial, mallory: &mallory, victim: &victim, reader: &reader, id }).await;
        }
        let now = victim.get("/api/users").await;
        assert_eq!(now.text, users.text, "somebody else changed the victim's users");
        let kept = victim.get(&format!("/api/documents/{id}")).await;
        assert_eq!((kept.status.as_u16(), &kept.json["version"]), (200, &json!(1)), "{}", kept.text);
    }
}

struct Case<'a> {
    method: &'a str,
    path: &'a str,
    denial: Denial,
    mallory: &'a Person,
    victim: &'a Person,
    reader: &'a Person,
    id: &'a str,
}

async fn every_refusal(case: &Case<'_>) {
    let Case { method, path, denial, mallory, victim, reader, id } = case;
    let name = format!("{method} {path}");
    let method: Method = method.parse().unwrap();
    let query = match *path {
        "/api/search" => "?q=victims-secret",
        "/api/documents" if method == Method::GET => "?tag=victims-secret",
        _ => "",
    };
    let path = some(path, id) + query;
    let body = match (&method, path.split('/').nth(2)) {
        (&Method::GET | &Method::DELETE, _) => None,
        (&Method::POST, Some("users")) => Some(json!({"email": "taken@over.example", "role": "admin"})),
        (_, Some("users")) => Some(json!({"role": "reader"})),
        (&Method::POST, Some("webhooks")) => Some(json!({"url": "https://taken.example/over"})),
        (_, Some("webhooks")) => Some(json!({"paused": true})),
        (_, Some("exports")) => Some(json!({"format": "zip"})),
        _ => Some(json!({"title": "taken over", "body": "taken over"})),
    };
    let send = async |who: &Person| who.send(method.clone(), &path, body.clone()).await;

    if *denial == Denial::Password {
        let email = format!("admin@{}.example", victim.host.trim_end_matches(".localhost"));
        let foreign = mallory.nobody().post(&path, json!({"email": email, "password": crate::house::PASSWORD})).await;
        foreign.must_be_problem(401);
        return;
    }
    // Without a token; with another tenant's token; with rubbish.
    send(&victim.nobody()).await.must_be_problem(401);
    send(&mallory.at(victim)).await.must_be_problem(401);
    for token in ["", "x", "null", "' OR 1=1 --", &"A".repeat(43), &"A".repeat(10_000)] {
        send(&Person { token: Some(token.to_owned()), ..(*victim).clone() }).await.must_be_problem(401);
    }
    // At the attacker's own host, with the victim's ids.
    match denial {
        Denial::Id | Denial::IdAndRole => send(mallory).await.must_be_problem(404),
        Denial::Unseen | Denial::UnseenAndRole => {
            let own = send(mallory).await;
            assert_eq!(own.status, 200, "{name}: {}", own.text);
            assert!(!leaks(&own), "{name}: {}", own.text);
        }
        _ => {}
    }
    if matches!(denial, Denial::Role | Denial::IdAndRole | Denial::UnseenAndRole) {
        send(reader).await.must_be_problem(403);
    }
}

#[tokio::test]
async fn pages_send_strangers_to_the_log_in() {
    let house = House::open().await;
    let mallory = house.admin("mallory-pages", Isolation::Row).await;
    let victim = house.admin("victim-pages", Isolation::Row).await;
    let id = victim.write("victims-secret", "victims-secret", &[]).await;
    let open: BTreeSet<_> = OPEN_PAGES.iter().chain(LINKS).copied().collect();
    let token = mallory.token.as_ref().unwrap();
    let form = acmedocs::sessions::Token::parse(token).unwrap().form_secret();
    for (method, path) in of(pages::ROUTES).difference(&open) {
        let name = format!("{method} {path}");
        let path = some(path, &id);
        let method: Method = method.parse().unwrap();
        let cookie = format!("session={token}");
        let body = format!(
            "form={form}&title=taken+over&body=x&email=taken%40over.example&role=admin&url=https%3A%2F%2Ftaken.example&topics=*"
        );
        let kind = ("content-type", "application/x-www-form-urlencoded");
        for cookie in ["", "session=", "session=x", cookie.as_str()] {
            let answer = victim.raw(method.clone(), &path, &[("cookie", cookie), kind], body.clone()).await;
            let away = answer.status == 303 && answer.headers["location"] == "/login";
            assert!(away || answer.status == 403, "{name} with {cookie:?}: {} {}", answer.status, answer.text);
            assert!(!leaks(&answer), "{name}");
        }
        // The victim's id at the attacker's own site.
        if path.contains(&id) {
            let answer = mallory.raw(method, &path, &[("cookie", &cookie), kind], body).await;
            assert_eq!(answer.status, 404, "{name}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_host_without_an_active_tenant_answers_nothing() {
    let house = House::open().await;
    let tenant = house.tenant("sleepy", Isolation::Row).await;
    let sleepy = house.person("sleepy", "admin").await;
    let nobody = Person { host: "no-such-tenant.localhost".to_owned(), ..sleepy.clone() };
    house.cell.set_tenant(&tenant, 1, TenantState::Suspended).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while sleepy.get("/api/documents").await.status != 403 {
        assert!(tokio::time::Instant::now() < deadline, "the suspension never arrived");
        tokio::task::yield_now().await;
    }
    for (method, path) in of(api::ROUTES).union(&of(pages::ROUTES)) {
        let path = some(path, "0");
        let method: Method = method.parse().unwrap();
        nobody.send(method.clone(), &path, None).await.must_be_problem(404);
        sleepy.send(method, &path, None).await.must_be_problem(403);
    }
    house.cell.set_tenant(&tenant, 1, TenantState::Active).await;
}
