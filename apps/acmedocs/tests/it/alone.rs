//! The same application for one customer on its own server: no gateway, no control plane, no catalog; a database and nothing else.

#![allow(clippy::disallowed_types, reason = "the customer's own administrator looks into the database")]

use std::path::Path;

use axum::http::Method;
use insula::alone::install;
use insula::{Config, ConnectError, Insula, scope};
use insula_testkit::TestServer;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::house::Person;

fn config(url: &str, folder: &Path) -> Config {
    let keys = folder.join("keys.json");
    let vars = [
        ("INSULA_TENANCY", "off"),
        ("INSULA_DATABASE_URL", url),
        ("INSULA_KEYRING", keys.to_str().expect("a path")),
        ("INSULA_ADMIN_EMAIL", "ann@acme.example"),
        ("INSULA_TENANT_NAME", "Acme"),
    ];
    let config = Config::from_vars(vars.map(|(name, value)| (name.to_owned(), value.to_owned()))).expect("settings");
    config.bringing(acmedocs::bundle::bundle(), acmedocs::features::all())
}

fn without_owner(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    format!("{scheme}://{}", rest.split_once('@').expect("an owner").1)
}

async fn serve(config: Config) -> Person {
    let insula = Insula::connect(config).await.expect("connects");
    let app = acmedocs::router().layer(insula.layer());
    Person { app: insula::service(app, &insula), host: "docs.acme.example".into(), token: None }
}

async fn log_in(person: &mut Person, password: &str) {
    let typed = json!({"email": "ann@acme.example", "password": password});
    let opened = person.send(Method::POST, "/api/session", Some(typed)).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    person.token = opened.json["token"].as_str().map(str::to_owned);
}

/// The way of an operator: prepare once, serve without the owner's password, prepare again after an upgrade.
async fn lives_alone(owner: &str, way: i32) {
    let folder = tempfile::tempdir().expect("a folder");
    let installed = install(&config(owner, folder.path())).await.expect("installs");
    let admin = installed.admin.expect("a first user");
    let migrations = acmedocs::bundle::bundle().migrations.len();
    assert_eq!((admin.email.as_str(), installed.migrations), ("ann@acme.example", migrations));
    assert!(!format!("{admin:?}").contains(&admin.password));

    let mut person = serve(config(&without_owner(owner), folder.path())).await;
    log_in(&mut person, &admin.password).await;
    let who = person.send(Method::GET, "/api/session", None).await;
    let workspace =
        json!({"name": "Acme", "plan": "home", "features": {"search": true, "custom_domain": true, "max_concurrent_exports": 8}});
    assert_eq!(who.json["workspace"], workspace);
    let written = json!({"title": "Lease", "body": "The tenant pays on the first.", "tags": ["law"]});
    let document = person.send(Method::POST, "/api/documents", Some(written)).await;
    assert_eq!(document.status, 201, "{}", document.text);
    // Whatever the host: whoever reaches this server is served for its one customer.
    for host in ["docs.acme.example", "10.0.0.7:8080", "[::1]:80", "localhost", "anything.example"] {
        person.host = host.into();
        let found = person.send(Method::GET, "/api/search?q=tenant", None).await;
        assert_eq!((found.status.as_u16(), found.json["total"].as_i64()), (200, Some(1)), "{host}: {}", found.text);
    }
    person.host = "a b".into();
    assert_eq!(person.send(Method::GET, "/", None).await.status, 400);
    assert!(scope::current().is_err());

    // Again, as after an upgrade: nothing is made twice.
    let again = install(&config(owner, folder.path())).await.expect("installs again");
    assert!(again.admin.is_none() && again.migrations == 0, "{again:?}");
    // A start with the owner prepares by itself.
    let mut person = serve(config(owner, folder.path())).await;
    log_in(&mut person, &admin.password).await;
    assert_eq!(person.send(Method::GET, "/api/documents", None).await.json["items"].as_array().map(Vec::len), Some(1));

    // The boundary is here as elsewhere: the login of the application owns nothing, and sees nothing but its own tenant.
    let mut conn = PgConnection::connect(owner).await.expect("the owner");
    let (found, lint): (i32, i64) =
        sqlx::query_as("SELECT insula.way(), (SELECT count(*) FROM insula.lint() WHERE severity = 'error')")
            .fetch_one(&mut conn)
            .await
            .expect("the kit");
    assert_eq!((found, lint), (way, 0));
    let role: String =
        sqlx::query_scalar("SELECT role FROM insula.tenant WHERE no = 1").fetch_one(&mut conn).await.expect("a login");
    let owns: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE relowner = $1::text::regrole")
        .bind(&role)
        .fetch_one(&mut conn)
        .await
        .expect("a count");
    assert_eq!(owns, 0);

    // Another key file opens nothing, and the sentence says what to do.
    let other = tempfile::tempdir().expect("a folder");
    let refused = Insula::connect(config(&without_owner(owner), other.path())).await.expect_err("no keys");
    assert!(matches!(refused, ConnectError::Config(_)), "{refused}");
    std::fs::write(other.path().join("keys.json"), format!(r#"{{"cells":{{"alone":"{}"}}}}"#, "ab".repeat(32)))
        .expect("a key file");
    let refused = Insula::connect(config(&without_owner(owner), other.path())).await.expect_err("the wrong key").to_string();
    assert!(refused.contains("prepare it") && !refused.contains("abab"), "{refused}");

    // With the key file lost, the owner makes another; nothing else is lost.
    let found = tempfile::tempdir().expect("a folder");
    assert!(install(&config(owner, found.path())).await.expect("installs with a new key").admin.is_none());
    let mut person = serve(config(&without_owner(owner), found.path())).await;
    log_in(&mut person, &admin.password).await;
    assert_eq!(person.send(Method::GET, "/api/documents", None).await.json["items"].as_array().map(Vec::len), Some(1));
}

/// A server of its own: preparing it sets the passwords of the server's roles, which the other tests log in with.
#[tokio::test]
async fn one_customer_lives_alone() {
    let server = insula_testkit::durable_server().await;
    lives_alone(&server.admin_url("lonely_super"), 1).await;
}

/// A server of its own: roles are the server's, and those of a superuser's kit are not another's to change.
#[tokio::test]
async fn also_without_a_superuser() {
    let server = insula_testkit::second_server().await;
    lives_alone(&plain_owner(server).await, 2).await;
}

async fn plain_owner(server: &TestServer) -> String {
    let mut admin = server.admin("postgres").await;
    for sql in
        ["CREATE ROLE plain_owner LOGIN CREATEROLE CREATEDB PASSWORD 'plain'", "CREATE DATABASE lonely_plain OWNER plain_owner"]
    {
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut admin).await.expect("an owner");
    }
    format!("postgres://plain_owner:plain@{}:{}/lonely_plain?sslmode=disable", server.host(), server.port())
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = async |url: &str| install(&config(url, folder.path())).await.expect_err("refused").to_string();
    assert!(says("postgres://127.0.0.1:1/acme").await.contains("names no user"));
    assert!(says("postgres://owner:hunter2@127.0.0.1:1/Acme-Docs").await.contains("lower-case letters"));
    let away = says("postgres://owner:hunter2@127.0.0.1:1/acme").await;
    assert!(away.contains("127.0.0.1:1/acme does not let the owner in") && !away.contains("hunter2"), "{away}");
    let bare = Config { brings: None, ..config("postgres://127.0.0.1:1/acme", folder.path()) };
    assert!(matches!(Insula::connect(bare).await, Err(ConnectError::Install(_))));
}
