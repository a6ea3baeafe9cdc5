//! Hostile input at the public addresses: a clear refusal, nothing half made, no internals in any answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use anyhow::{Result, ensure};
use insula_e2e::client::User;
use insula_e2e::secrets::Secrets;
use insula_e2e::up::Up;
use reqwest::header::{CONTENT_TYPE, HOST};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// What people type to see whether the wall gives.
const HOSTILE: &[&str] = &[
    "'; DROP TABLE documents; --",
    "' OR '1'='1",
    "1; SELECT insula.enter('1.1.9999999999.1.1.1.00')",
    "'; SET backtrace_functions = '1'; --",
    "'||(SELECT string_agg(title, ',') FROM documents)||'",
    "$$; COPY documents TO '/tmp/x'; $$",
    "\\x00\\x27",
    "%00%27%20OR%201=1",
    "<script>alert(1)</script>",
    "{{7*7}} ${7*7} #{7*7}",
    "../../../../etc/passwd",
    "\u{202e}evil\u{200b}\u{feff}",
    "\u{1F469}\u{200D}\u{1F680} ß İ ǅ \u{FFFF}",
    "a:* & !b | (c <-> d) ::: \" ' \\",
];

/// Signs of an answer that tells too much.
const TELLTALE: &[&str] =
    &["syntax error", "sqlstate", "postgres", "panicked", "backtrace", "insula_app", "insula_pool", "tenant_id", "relation \""];

/// Refused clearly, or taken as plain text; never a fault of ours and never our insides.
fn sound(what: &str, status: StatusCode, body: &str) -> Result<()> {
    ensure!(!status.is_server_error(), "{what}: {status} {body}");
    if status.is_client_error() {
        let problem: Value = serde_json::from_str(body)?;
        ensure!(problem["status"] == status.as_u16() && problem["title"].is_string(), "{what}: not a problem body: {body}");
        let lower = body.to_lowercase();
        ensure!(!TELLTALE.iter().any(|t| lower.contains(t)), "{what}: the answer tells too much: {body}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_input_is_refused_or_taken_as_text() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::start(&folder.path().join("data"))?;
    let tenant = up.tenant("hostile", "gold", "row")?;
    let bystander = User::log_in(&up, &up.tenant("bystander", "bronze", "row")?).await?;
    let kept = bystander.write("Kept", "secret of the bystander").await?;
    let user = User::log_in(&up, &tenant).await?;
    let mut secrets = Secrets::of(&up)?;
    secrets.add_tenant(&tenant);
    secrets.add("a session's token", user.token());
    secrets.add("the bystander's token", bystander.token());

    every_field(&user).await?;
    bodies(&user, &up).await?;
    hosts(&up).await?;
    control_fields(&up).await?;

    let (status, document) = bystander.json(Method::GET, &format!("/api/documents/{kept}"), None).await?;
    ensure!(status == StatusCode::OK && document["title"] == "Kept", "the bystander's document: {status} {document}");
    // All that was tried went through the logs.
    secrets.nowhere_told(&up)?;
    up.stop()
}

async fn every_field(user: &User) -> Result<()> {
    for text in HOSTILE {
        let body = json!({"title": text, "body": text, "tags": [text]});
        let (status, created) = user.json(Method::POST, "/api/documents", Some(&body)).await?;
        sound(text, status, &created.to_string())?;
        if status == StatusCode::CREATED {
            let id = created["id"].as_str().unwrap_or_default();
            let (_, read) = user.json(Method::GET, &format!("/api/documents/{id}"), None).await?;
            ensure!(read["title"] == *text && read["body"] == *text, "{text:?} came back as {read}");
        }
        let mut query = reqwest::Url::parse("http://x/")?;
        query.query_pairs_mut().append_pair("q", text).append_pair("after", text).append_pair("limit", text);
        let query = query.query().unwrap_or_default().to_owned();
        for path in
            [format!("/api/search?{query}"), format!("/api/documents?{query}"), format!("/api/documents/{}", urlencode(text))]
        {
            let answer = user.send(Method::GET, &path, None).await?;
            let (status, body) = (answer.status(), answer.text().await?);
            sound(&path, status, &body)?;
            ensure!(!body.contains("secret of the bystander"), "{path} shows another tenant's row: {body}");
        }
        let (status, answer) = user.json(Method::POST, "/api/session", Some(&json!({"email": text, "password": text}))).await?;
        ensure!(status.is_client_error(), "log-in with {text:?}: {status} {answer}");
        sound(text, status, &answer.to_string())?;
    }
    Ok(())
}

fn urlencode(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// Bodies that are not what they should be.
async fn bodies(user: &User, up: &Up) -> Result<()> {
    let nul = json!({"title": "a\u{0}b", "body": "x", "tags": []});
    let (status, answer) = user.json(Method::POST, "/api/documents", Some(&nul)).await?;
    ensure!(matches!(status.as_u16(), 400 | 422) && answer.to_string().contains("title"), "NUL: {status} {answer}");
    for wrong in [json!({}), json!({"title": 7, "body": "x"}), json!([]), json!({"title": "x", "body": "y", "tags": "z"})] {
        let (status, answer) = user.json(Method::POST, "/api/documents", Some(&wrong)).await?;
        ensure!(matches!(status.as_u16(), 400 | 422), "{wrong}: {status} {answer}");
        sound(&wrong.to_string(), status, &answer.to_string())?;
    }
    let base = up.ready.gateway_url.trim_end_matches('/');
    for raw in ["", "{", "\u{feff}{}", "nul", "[[[[[[[["] {
        let sent = Client::new().post(format!("{base}/api/session")).header(HOST, "hostile.localhost");
        let answer = sent.header(CONTENT_TYPE, "application/json").body(raw).send().await?;
        let (status, body) = (answer.status(), answer.text().await?);
        ensure!(matches!(status.as_u16(), 400 | 422), "{raw:?}: {status} {body}");
        sound(raw, status, &body)?;
    }
    // 50 MB: refused early. The server may close before all is sent; that is a refusal too.
    let huge = json!({"title": "x", "body": "y".repeat(50 << 20), "tags": []});
    if let Ok((status, answer)) = user.json(Method::POST, "/api/documents", Some(&huge)).await {
        ensure!(status == StatusCode::PAYLOAD_TOO_LARGE, "50 MB: {status} {answer}");
    }
    let (status, _) = user.json(Method::GET, "/api/documents?limit=1", None).await?;
    ensure!(status == StatusCode::OK, "after 50 MB the application answers {status}");
    Ok(())
}

/// Host headers of every shape: a known tenant, or a 4xx; nobody else's page.
async fn hosts(up: &Up) -> Result<()> {
    let base = up.ready.gateway_url.trim_end_matches('/');
    let long = format!("{}.localhost", "a".repeat(300));
    let cases = [
        ("nobody.localhost", 404),
        ("localhost", 404),
        ("HOSTILE.LOCALHOST:1234", 200),
        ("hostile.localhost.", 200),
        ("a.hostile.localhost", 404),
        ("hostile.localhost.evil.example", 404),
        ("hostile.localhost@evil", 400),
        ("[::1]", 404),
        ("'; --.localhost", 400),
        (long.as_str(), 404),
    ];
    for (host, expected) in cases {
        let answer = Client::new().get(format!("{base}/")).header(HOST, host).send().await?;
        let (status, body) = (answer.status().as_u16(), answer.text().await?);
        let fits = if expected == 200 { status < 400 } else { (400..500).contains(&status) };
        ensure!(fits, "Host {host:?}: {status}, expected about {expected}: {body}");
    }
    Ok(())
}

/// The control API: wrong fields are named, nothing is half made.
async fn control_fields(up: &Up) -> Result<()> {
    let base = up.ready.control_url.trim_end_matches('/');
    let http = Client::new();
    let before = up.insula(&["tenant", "list"])?;
    for text in HOSTILE.iter().chain(&["a\u{0}b", "", "-", "UPPER", "taken.localhost", "www"]) {
        for body in [json!({"slug": text, "plan": "bronze"}), json!({"slug": "fine-slug", "plan": text})] {
            let answer = http.post(format!("{base}/v1/tenants")).bearer_auth(&up.ready.admin_key).json(&body).send().await?;
            let (status, answer) = (answer.status(), answer.text().await?);
            ensure!(status.is_client_error(), "{body}: {status} {answer}");
            sound(&body.to_string(), status, &answer)?;
        }
    }
    let taken = json!({"slug": "hostile", "plan": "bronze"});
    let answer = http.post(format!("{base}/v1/tenants")).bearer_auth(&up.ready.admin_key).json(&taken).send().await?;
    ensure!(answer.status() == StatusCode::CONFLICT, "a taken slug: {}", answer.status());
    let unknown = json!({"slug": "fine-slug", "plan": "bronze", "surprise": 1});
    let answer = http.post(format!("{base}/v1/tenants")).bearer_auth(&up.ready.admin_key).json(&unknown).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(matches!(status.as_u16(), 400 | 422) && text.contains("surprise"), "an unknown field: {status} {text}");
    for key in ["", "wrong", "ik_0000000000000000000000000000000000000000000000000000000000000000"] {
        let answer = http.get(format!("{base}/v1/tenants")).bearer_auth(key).send().await?;
        ensure!(answer.status() == StatusCode::UNAUTHORIZED, "key {key:?}: {}", answer.status());
    }
    ensure!(up.insula(&["tenant", "list"])? == before, "a refused request left something behind");
    Ok(())
}
