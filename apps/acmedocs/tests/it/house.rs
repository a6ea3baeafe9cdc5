//! The application in process, and people who use it.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::routing::get;
use axum::routing::post;
use insula::config::Store;
use insula::{Config, Insula, Json, Result, Tenant};
use insula_testkit::{Isolation, TestCell, TestTenant};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A running application and the cell below it.
pub(crate) struct House {
    pub(crate) cell: &'static TestCell,
    pub(crate) app: Router,
    pub(crate) insula: Insula,
}

/// All migrations, in their order.
const MIGRATIONS: &str = concat!(
    include_str!("../../migrations/0001_documents.sql"),
    include_str!("../../migrations/0002_exports.sql"),
    include_str!("../../migrations/0003_digests.sql"),
    include_str!("../../migrations/0004_export_removals.sql"),
);

#[derive(Deserialize)]
struct Seed {
    email: String,
    role: String,
}

/// Runs the bundle's own seed, as the control plane does, and gives the user a role. Behind the layer like any route.
async fn seed(tenant: Tenant, Json(seed): Json<Seed>) -> Result<()> {
    let mut tx = tenant.begin().await?;
    let hash = tokio::task::spawn_blocking(|| acmedocs::password::hash(PASSWORD)).await??;
    sqlx::query(sqlx::AssertSqlSafe(acmedocs::bundle::bundle().seed))
        .bind(&seed.email)
        .bind(hash)
        .bind(tenant.display_name())
        .bind(json!({}))
        .execute(&mut tx)
        .await?;
    sqlx::query("UPDATE users SET role = $2 WHERE email = $1").bind(seed.email).bind(seed.role).execute(&mut tx).await?;
    Ok(tx.commit().await?)
}

/// Writes the missing digests, as the job does.
async fn digest(tenant: Tenant) -> Result<Json<usize>> {
    Ok(Json(acmedocs::digests::write_missing(&tenant).await?))
}

/// Moves what happened, and the digests, some hours into the past.
async fn age(tenant: Tenant, Json(hours): Json<i32>) -> Result<()> {
    let mut tx = tenant.begin().await?;
    for sql in [
        "UPDATE documents SET created_at = created_at - make_interval(hours => $1)",
        "UPDATE document_versions SET created_at = created_at - make_interval(hours => $1)",
        "UPDATE deletions SET deleted_at = deleted_at - make_interval(hours => $1)",
        "UPDATE digests SET day = day - $1 / 24",
    ] {
        sqlx::query(sql).bind(hours).execute(&mut tx).await?;
    }
    Ok(tx.commit().await?)
}

async fn zone(tenant: Tenant) -> Json<String> {
    Json(tenant.settings().time_zone.as_str().to_owned())
}

/// One folder for all tests: a worker of one may serve a tenant of another.
fn store() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("objects-{}", std::process::id()))
}

impl House {
    pub(crate) async fn open() -> Self {
        let cell = TestCell::shared(MIGRATIONS).await;
        // Who tries every route in every wrong way asks for more than the plan's rate allows.
        let catalog = cell.catalog().await;
        let sql = r#"UPDATE catalog.plan SET limits = limits || '{"requests_per_second": 10000, "request_burst": 10000}', version = version + 1
                     WHERE name = 'silver' AND limits->>'request_burst' <> '10000'"#;
        sqlx::query(sql).execute(&catalog).await.expect("another limit");
        catalog.close().await;
        let mut config = Config::for_many(cell.catalog_url(), cell.key_ring());
        config.store = Store::Folder(store());
        config.telling.webhook_private = true;
        let insula = Insula::connect(config).await.expect("connects");
        let tests = Router::new().route("/test/seed", post(seed)).route("/test/digest", post(digest));
        let tests = tests.route("/test/age", post(age)).route("/test/zone", get(zone));
        let app = acmedocs::router().merge(tests).layer(insula.layer());
        Self { cell, app: insula::service(app, &insula), insula }
    }

    /// The files that are in the store for an export of a tenant's.
    pub(crate) fn objects_of(&self, tenant: &TestTenant, export: &str) -> Vec<String> {
        fn under(folder: &Path, name: &str, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = format!("{name}{}", entry.file_name().to_string_lossy());
                if entry.path().is_dir() { under(&entry.path(), &format!("{name}/"), found) } else { found.push(name) }
            }
        }
        let mut found = vec![];
        under(&store().join(format!("tenants/{}/exports/{export}", tenant.context.tenant)), "", &mut found);
        found
    }

    pub(crate) async fn tenant(&self, slug: &str, isolation: Isolation) -> TestTenant {
        self.cell.tenant(slug, "silver", isolation).await
    }

    /// A new tenant's admin, logged in.
    pub(crate) async fn admin(&self, slug: &str, isolation: Isolation) -> Person {
        self.tenant(slug, isolation).await;
        self.person(slug, "admin").await
    }

    /// One more user of a tenant, logged in.
    pub(crate) async fn person(&self, slug: &str, role: &str) -> Person {
        let email = format!("{role}@{slug}.example");
        let mut person = Person { app: self.app.clone(), host: format!("{slug}.localhost"), token: None };
        let seeded = person.send(Method::POST, "/test/seed", Some(json!({"email": email, "role": role}))).await;
        assert_eq!(seeded.status, 200, "{}", seeded.text);
        let opened = person.send(Method::POST, "/api/session", Some(json!({"email": email, "password": PASSWORD}))).await;
        assert_eq!(opened.status, 200, "{}", opened.text);
        person.token = opened.json["token"].as_str().map(str::to_owned);
        person
    }
}

/// Somebody who sends requests to one host.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) app: Router,
    pub(crate) host: String,
    pub(crate) token: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Person {
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut headers = vec![];
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        self.raw(method, path, &headers, body.map(|body| body.to_string()).unwrap_or_default()).await
    }

    /// Any request to the person's host, without a token.
    pub(crate) async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        let (parts, body) = self.app.clone().oneshot(request).await.expect("never fails").into_parts();
        let bytes = to_bytes(body, 64 << 20).await.expect("a body");
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let json = serde_json::from_str(&text).unwrap_or_default();
        Answer { status: parts.status, headers: parts.headers, text, json }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// Writes a document; gives its id.
    pub(crate) async fn write(&self, title: &str, body: &str, tags: &[&str]) -> String {
        let made = self.post("/api/documents", json!({"title": title, "body": body, "tags": tags})).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json["id"].as_str().expect("an id").to_owned()
    }

    /// The same person's requests, with the token, at another host.
    pub(crate) fn at(&self, other: &Self) -> Self {
        Self { host: other.host.clone(), ..self.clone() }
    }

    /// Without a token.
    pub(crate) fn nobody(&self) -> Self {
        Self { token: None, ..self.clone() }
    }
}

impl Answer {
    /// Holds that it is a problem of this status, in the right media type, and speaks of nothing internal.
    #[track_caller]
    pub(crate) fn must_be_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        assert_eq!(self.json["status"], status, "{}", self.text);
        assert!(!self.json["request_id"].as_str().unwrap_or_default().is_empty(), "{}", self.text);
        let lower = self.text.to_lowercase();
        for leak in ["postgres", "sqlx", "relation", concat!("tenant", "_id"), "insula_app", "panicked", "syntax error"] {
            assert!(!lower.contains(leak), "{}", self.text);
        }
    }

    /// Holds that it is a 422 that names this field.
    #[track_caller]
    pub(crate) fn must_name(&self, field: &str) {
        self.must_be_problem(422);
        assert_eq!(self.json["errors"][0]["field"], field, "{}", self.text);
    }
}
