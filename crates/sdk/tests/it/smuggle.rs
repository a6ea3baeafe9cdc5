//! A handler of bad will, or one that was injected: what it tries to smuggle past the transaction that it was given, in every
//! isolation mode, on a real cell. It must see, change and leave nothing beyond its own tenant.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::routing::post;
use insula::{Config, Error, Insula, Json, Kind, Result, Tenant, TenantTx, scope};
use insula_testkit::{Isolation, TestCell};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::sync::Mutex;
use tower::ServiceExt;

/// The cell is one for all tests of the binary.
pub(crate) const MIGRATION: &str = "CREATE TABLE notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text NOT NULL);
    SELECT insula.tenant_table('notes')";
const SECRET: &str = "VICTIM-SECRET";

/// What must never run from a handler: the gate, the extended protocol or the database refuses it.
const REFUSED: &[&str] = &[
    "SET ROLE insula_owner",
    "SET SESSION AUTHORIZATION insula_owner",
    "SET backtrace_functions = '1'",
    "SET row_security = off",
    "RESET ALL",
    "DISCARD ALL",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "END",
    "ABORT",
    "SAVEPOINT s",
    "COMMIT AND CHAIN",
    "SELECT 1; COMMIT",
    "SELECT 1; COMMIT; SELECT * FROM notes",
    "SELECT 1; SET ROLE insula_owner; SELECT * FROM notes",
    "INSERT INTO notes (body) VALUES ('x'); COMMIT; BEGIN",
    "/* SELECT */ COMMIT",
    "-- SELECT\nCOMMIT",
    "PREPARE TRANSACTION 'held'",
    "COMMIT PREPARED 'held'",
    "ROLLBACK PREPARED 'held'",
    "PREPARE p AS SELECT * FROM notes",
    "EXECUTE p",
    "DEALLOCATE ALL",
    "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM notes",
    "FETCH ALL FROM c",
    "COPY notes TO STDOUT",
    "COPY notes FROM STDIN",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "DO $$ BEGIN COMMIT; END $$",
    "CALL p()",
    "LISTEN x",
    "NOTIFY x",
    "LOCK TABLE notes",
    "EXPLAIN ANALYZE SELECT * FROM notes",
    "CREATE TEMP TABLE t ()",
    "SELECT 1 AS x INTO TEMP t",
    "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
    "WITH x AS (SELECT 1) SELECT set_config('backtrace_functions', '1', false)",
    "SELECT set_config('role', 'insula_owner', false)",
    "SELECT insula.enter('1.1.9999999999.1.1.1.00')",
    "SELECT insula.host_enter(1)",
    "SELECT pg_advisory_lock(1)",
    "SELECT query_to_xml('SELECT 1', true, true, '')",
    "UPDATE pg_settings SET setting = '1' WHERE name = 'backtrace_functions'",
    "MERGE INTO notes n USING (VALUES (1)) v (x) ON true WHEN MATCHED THEN UPDATE SET body = 'mine'",
    "UPDATE notes SET tenant_id = tenant_id + 1",
    "INSERT INTO notes (tenant_id, body) SELECT n, 'planted' FROM generate_series(1, 50) n",
];

/// What may run, and shows its own rows at most.
const HARMLESS: &[&str] = &[
    "SELECT body FROM notes WHERE true OR tenant_id > 0",
    "TABLE notes",
    "WITH d AS (DELETE FROM notes WHERE body <> 'mine' RETURNING body) SELECT body FROM d",
    "UPDATE notes SET body = body RETURNING body",
    "SELECT string_agg(body, ',') FROM notes",
    "SELECT body FROM ONLY notes FOR UPDATE",
    "VALUES (current_setting('is_superuser'))",
];

#[derive(Deserialize)]
struct Words {
    text: String,
}

/// The injection itself: any text as a statement, by every way in that sqlx has, each in a transaction that is then committed
/// if it can be. `None` for what was refused, else everything that came back.
async fn inject(tenant: Tenant, Json(words): Json<Words>) -> Result<Json<Vec<Option<String>>>> {
    let mut said = Vec::new();
    for way in 0..4 {
        let mut tx = tenant.begin().await?;
        let sql = AssertSqlSafe(words.text.clone());
        let outcome = match way {
            0 => sqlx::query(sql).fetch_all(&mut tx).await,
            1 => sqlx::raw_sql(sql).fetch_all(&mut tx).await,
            2 => sqlx::query(sql).persistent(false).fetch_all(&mut tx).await,
            _ => (&mut tx).fetch_optional(sqlx::raw_sql(sql)).await.map(|row| row.into_iter().collect()),
        };
        said.push(outcome.ok().map(|rows| rows.iter().map(text_of).collect()));
        let _ = tx.commit().await;
    }
    Ok(Json(said))
}

fn text_of(row: &PgRow) -> String {
    (0..row.len()).map(|n| row.try_get::<String, _>(n).unwrap_or_default()).collect()
}

async fn bodies(tx: &mut TenantTx) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar("SELECT body FROM notes ORDER BY body").fetch_all(tx).await?)
}

async fn write(tenant: Tenant, Json(words): Json<Words>) -> Result<()> {
    let mut tx = tenant.begin().await?;
    sqlx::query("INSERT INTO notes (body) VALUES ($1)").bind(words.text).execute(&mut tx).await?;
    Ok(tx.commit().await?)
}

async fn read(tenant: Tenant) -> Result<Json<Vec<String>>> {
    Ok(Json(bodies(&mut tenant.begin().await?).await?))
}

/// Where one request leaves things for another, as a careless global would.
static LEFT: Mutex<Option<(Tenant, TenantTx)>> = Mutex::const_new(None);

async fn leave(tenant: Tenant) -> Result<()> {
    let tx = tenant.begin().await?;
    *LEFT.lock().await = Some((tenant, tx));
    Ok(())
}

/// Another request's transaction and extractor in this request: to read by it, to commit it, to open one more.
async fn take(_mine: Tenant) -> Result<Json<[&'static str; 4]>> {
    let Some((tenant, mut tx)) = LEFT.lock().await.take() else { return Err(Error::not_found()) };
    let read = bodies(&mut tx).await.map_or_else(|e| e.kind().name(), |_| "read");
    let committed = tx.commit().await.map_or_else(|e| e.kind().name(), |()| "committed");
    let opened = tenant.begin().await.map_or_else(|e| e.kind().name(), |_| "opened");
    // In a scope of its own it is work for that tenant, said aloud.
    let aloud = scope::enter(tenant.context().clone(), async { tenant.begin().await.is_ok() }).await;
    Ok(Json([read, committed, opened, if aloud { "aloud" } else { "refused" }]))
}

/// Work beside the request: a plain spawn has no tenant, a kept one has this request's.
#[allow(clippy::disallowed_methods, reason = "this is what is tried")]
async fn beside(tenant: Tenant) -> Result<Json<[bool; 3]>> {
    let is_mine = move || scope::current().ok().map(|context| context.tenant == tenant.context().tenant);
    let (spawned, blocking) = (is_mine.clone(), is_mine.clone());
    let plain = tokio::spawn(async move { is_mine() }).await?;
    let kept = insula::spawn(async move { spawned() })?.await?;
    let thread = insula::spawn_blocking(blocking)?.await?;
    Ok(Json([plain.is_none(), kept == Some(true), thread == Some(true)]))
}

async fn app() -> (&'static TestCell, Router) {
    let cell = TestCell::shared(MIGRATION).await;
    let config = Config::for_many(cell.catalog_url(), cell.key_ring());
    let insula = Insula::connect(config).await.unwrap();
    let app = Router::new()
        .route("/inject", post(inject))
        .route("/write", post(write))
        .route("/read", post(read))
        .route("/leave", post(leave))
        .route("/take", post(take))
        .route("/beside", post(beside))
        .layer(insula.layer());
    (cell, insula::service(app, &insula))
}

async fn ask(app: &Router, slug: &str, path: &str, text: &str) -> (u16, Value) {
    let body = json!({ "text": text }).to_string();
    let request = Request::post(path).header("host", format!("{slug}.localhost")).header("content-type", "application/json");
    let response = app.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn smuggle(isolation: Isolation) {
    let (cell, app) = app().await;
    let name = isolation.as_str();
    let (attacker, victim) = (format!("attacker-{name}"), format!("victim-{name}"));
    for (slug, text) in [(&victim, SECRET), (&attacker, "mine")] {
        cell.tenant(slug, "gold", isolation).await;
        assert_eq!(ask(&app, slug, "/write", text).await.0, 200);
    }
    for (sqls, must_refuse) in [(REFUSED, true), (HARMLESS, false)] {
        for sql in sqls {
            let (status, said) = ask(&app, &attacker, "/inject", sql).await;
            assert_eq!(status, 200, "{name}: {sql}: {said}");
            assert!(!said.to_string().contains(SECRET), "{name}: {sql}: {said}");
            let ways = said.as_array().unwrap();
            assert!(ways.iter().all(|way| way.is_null() == must_refuse), "{name}: {sql}: {said}");
            // The next user of whatever connection that was finds nothing but its own.
            for (slug, own) in [(&victim, SECRET), (&attacker, "mine")] {
                assert_eq!(ask(&app, slug, "/read", "").await, (200, json!([own])), "{name}: after {sql}");
            }
        }
    }
    assert_eq!(ask(&app, &attacker, "/beside", "").await, (200, json!([true, true, true])));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_in_row_isolation() {
    smuggle(Isolation::Row).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_in_schema_isolation() {
    smuggle(Isolation::Schema).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_in_database_isolation() {
    smuggle(Isolation::Database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_request_leaves_is_worth_nothing_in_another_tenant_s() {
    let (cell, app) = app().await;
    for slug in ["left-by", "taken-by"] {
        cell.tenant(slug, "gold", Isolation::Row).await;
    }
    assert_eq!(ask(&app, "left-by", "/leave", "").await.0, 200);
    let security = Kind::Security.name();
    assert_eq!(ask(&app, "taken-by", "/take", "").await, (200, json!([security, security, security, "aloud"])));
}
