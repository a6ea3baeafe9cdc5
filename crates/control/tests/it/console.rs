//! The console as a browser gets it: whole, guarded, and from this origin alone.

use insula_api::key::Scope;
use reqwest::StatusCode;
use reqwest::redirect::Policy;

use crate::rest_house::{Answer, House, answer, house};

/// What every answer below `/console` says, files and refusals alike.
fn is_guarded(answer: &Answer) {
    let policy = answer.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|found| found == part), "{part} is not in {policy:?}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("set-cookie"), "", "nobody is remembered by a cookie");
}

async fn shown(house: &House, path: &str) -> Answer {
    let found = answer(house.bare("GET", path)).await;
    is_guarded(&found);
    found
}

/// What the page loads.
fn named(page: &str) -> Vec<String> {
    let quoted = page.split('"').skip(1).step_by(2);
    quoted.filter(|text| text.starts_with("/console/")).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_page_and_what_it_names_are_there() {
    let house = house().await;
    let page = shown(house, "/console/").await;
    page.is(200);
    assert_eq!((page.header("content-type"), page.header("cache-control")), ("text/html; charset=utf-8", "no-cache"));
    // Nothing in the page itself that the policy would refuse.
    for refused in ["<style", "style=", "onload=", "onerror=", "javascript:"] {
        assert!(!page.text.contains(refused), "{refused}: {}", page.text);
    }
    assert!(page.text.split("<script").skip(1).all(|script| script.contains("src=\"/console/assets/")), "{}", page.text);

    let files = named(&page.text);
    for (ending, kind) in
        [(".js", "text/javascript; charset=utf-8"), (".css", "text/css; charset=utf-8"), (".svg", "image/svg+xml")]
    {
        let file = files.iter().find(|file| file.ends_with(ending)).unwrap_or_else(|| panic!("no {ending} in {files:?}"));
        let found = shown(house, file).await;
        found.is(200);
        assert_eq!(found.header("content-type"), kind, "{file}");
        assert_eq!(found.header("cache-control"), "public, max-age=31536000, immutable", "{file}");
    }
    let licences = shown(house, "/console/licences.txt").await;
    licences.is(200);
    for package in ["react ", "react-dom ", "scheduler "] {
        assert!(licences.text.contains(package), "{}", licences.text);
    }

    let again = answer(house.bare("GET", "/console/").header("if-none-match", page.header("etag"))).await;
    assert_eq!((again.status, again.text.as_str()), (StatusCode::NOT_MODIFIED, ""));
    is_guarded(&again);
    let other = answer(house.bare("GET", "/console/").header("if-none-match", "\"another\"")).await;
    assert_eq!((other.status, &other.text), (StatusCode::OK, &page.text));
}

#[tokio::test]
async fn addresses_of_its_pages_are_the_page_and_files_that_are_not_there_are_not() {
    let house = house().await;
    let page = shown(house, "/console/").await;
    for path in ["/console/tenants", "/console/tenants/acme/jobs/01a1fc38-1ab2-77f1-8dd2-fc54f8cc8fcf", "/console/cells?x=1"] {
        assert_eq!(shown(house, path).await.is(200).text, page.text, "{path}");
    }
    for path in [
        "/console/assets/index-00000000.js",
        "/console/assets/",
        "/console/assets/../index.html.js",
        "/console/assets/%2e%2e%2fsources.sha256",
        "/console/tenants/index.js",
        "/console/sources.sha256",
        "/console/favicon.ico",
    ] {
        let found = shown(house, path).await;
        found.is(404);
        assert_eq!(
            (found.header("content-type"), found.header("cache-control")),
            ("text/plain; charset=utf-8", "no-store"),
            "{path}"
        );
    }
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client");
    let url = house.bare("GET", "/console").build().expect("a request").url().clone();
    let sent = client.get(url.clone()).send().await.expect("an answer");
    assert_eq!((sent.status(), sent.headers()["location"].to_str().ok()), (StatusCode::PERMANENT_REDIRECT, Some("/console/")));
    assert_eq!(client.post(url).send().await.expect("an answer").status(), StatusCode::METHOD_NOT_ALLOWED);
    // The API still answers for all the rest.
    answer(house.bare("GET", "/nowhere")).await.is_problem(404, "not-found");
}

#[tokio::test]
async fn a_key_in_an_address_is_no_key() {
    let house = house().await;
    let key = house.key(Scope::Admin);
    for name in ["key", "token", "access_token", "authorization"] {
        answer(house.bare("GET", "/v1/status").query(&[(name, key)])).await.is_problem(401, "unauthenticated");
    }
    let cookie = answer(house.bare("GET", "/v1/status").header("cookie", format!("key={key}; authorization=Bearer {key}"))).await;
    cookie.is_problem(401, "unauthenticated");
}
