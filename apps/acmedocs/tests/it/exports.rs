//! Exports: asked for, made by a worker, downloaded by a link; and what becomes of them when something is in the way.

use std::io::{Cursor, Read as _};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use insula::jobs::{DatabaseName, Worker, WorkerConfig};
use insula_testkit::{Isolation, TestTenant};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::house::{House, Person};

/// A worker for one tenant's database, so that it takes nothing of the other tests'.
pub(crate) fn worker(house: &House, tenant: &TestTenant) -> Worker {
    let database = DatabaseName { cell: tenant.placement.cell.clone(), database: tenant.placement.database.clone() };
    let config = WorkerConfig {
        databases: Some(vec![database]),
        lease: Duration::from_secs(2),
        poll: Duration::from_millis(50),
        ..WorkerConfig::default()
    };
    house.insula.worker(acmedocs::jobs().expect("patterns"), config).expect("a worker")
}

async fn ask(person: &Person) -> String {
    let asked = person.post("/api/exports", json!({"format": "zip"})).await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    assert_eq!(asked.json["state"], "waiting", "{}", asked.text);
    let id = asked.json["id"].as_str().expect("an id").to_owned();
    assert_eq!(asked.headers["location"], format!("/api/exports/{id}").as_str());
    id
}

/// Waits until the export is as `wanted` says.
async fn until(person: &Person, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        let answer = person.get(&format!("/api/exports/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        if wanted(&answer.json) {
            return answer.json;
        }
        assert!(tokio::time::Instant::now() < deadline, "it stays as it is: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn download(person: &Person, link: &str) -> (StatusCode, String, Vec<u8>) {
    let request = Request::builder().uri(link).header("host", &person.host).body(Body::empty()).expect("a request");
    let (parts, body) = person.app.clone().oneshot(request).await.expect("never fails").into_parts();
    let name = parts.headers.get("content-disposition").and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned();
    (parts.status, name, to_bytes(body, 256 << 20).await.expect("a body").to_vec())
}

fn text(zip: &mut zip::ZipArchive<Cursor<Vec<u8>>>, name: &str) -> String {
    let mut text = String::new();
    zip.by_name(name).unwrap_or_else(|_| panic!("{name} is not in it")).read_to_string(&mut text).expect("text");
    text
}

#[tokio::test]
async fn all_documents_come_out_as_they_went_in() {
    let house = House::open().await;
    for (slug, isolation) in [("export-database", Isolation::Database), ("export-schema", Isolation::Schema)] {
        let tenant = house.tenant(slug, isolation).await;
        let ann = house.person(slug, "admin").await;
        let mallory = house.admin(&format!("mallory-{slug}"), Isolation::Row).await;
        for n in 0..25 {
            ann.write(&format!("Letter {n}: \"yes/no\""), &format!("# Letter\n\n{n} ünd so weiter"), &["post"]).await;
        }
        ann.write("Long", &"0123456789abcdef".repeat(60_000), &[]).await;
        let id = ask(&ann).await;
        let worker = worker(&house, &tenant);
        let done = until(&ann, &id, |export| export["state"] == "done").await;
        assert_eq!((&done["progress"]["documents"], &done["progress"]["of"]), (&json!(26), &json!(26)), "{done}");

        let link = done["download"].as_str().expect("a link");
        let (status, name, bytes) = download(&ann.nobody(), link).await;
        assert_eq!(status, 200);
        assert!(name.starts_with(&format!("attachment; filename=\"{slug}-")) && name.ends_with(".zip\""), "{name}");
        assert_eq!(done["progress"]["bytes"], bytes.len());
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).expect("a zip");
        assert_eq!(zip.len(), 27);
        let last = text(&mut zip, "documents/DOC-000025 Letter 24- -yes-no-.md");
        assert_eq!(last, "# Letter\n\n24 ünd so weiter");
        let index = text(&mut zip, "index.jsonl");
        assert_eq!(index.lines().count(), 26);
        let first: Value = serde_json::from_str(index.lines().next().expect("a line")).expect("JSON");
        assert_eq!((&first["title"], &first["tags"]), (&json!("Letter 0: \"yes/no\""), &json!(["post"])));
        assert_eq!(text(&mut zip, first["file"].as_str().expect("a file")), "# Letter\n\n0 ünd so weiter");

        // The link is this tenant's, for this file, for a time.
        assert_eq!(download(&mallory, link).await.0, 404);
        let path = format!("/exports/{id}/file");
        for forged in [path.clone(), format!("{link}0"), link.replace("until=1", "until=2"), link.replace(&id, &uuid())] {
            assert_eq!(download(&ann, &forged).await.0, 404, "{forged}");
        }
        let key = house.cell.server().cell_key().link_key(tenant.context.tenant);
        let over = format!("{path}?until=1&signature={}", key.sign(&[&path, "1"]));
        assert_eq!(download(&ann, &over).await.0, 410);

        // Removed on demand: the same link says that it was there.
        assert_eq!(ann.delete(&format!("/api/exports/{id}")).await.status, 204);
        let gone = until(&ann, &id, |export| export["state"] == "expired").await;
        assert_eq!(gone["download"], Value::Null);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while download(&ann, link).await.0 != 410 {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(house.objects_of(&tenant, &id), Vec::<String>::new());
        worker.stop().await;
    }
}

fn uuid() -> String {
    "00000000-0000-7000-8000-000000000000".to_owned()
}

#[tokio::test]
async fn a_workspace_without_documents_has_an_export_too() {
    let house = House::open().await;
    let tenant = house.tenant("export-empty", Isolation::Database).await;
    let ann = house.person("export-empty", "admin").await;
    let worker = worker(&house, &tenant);
    let id = ask(&ann).await;
    let done = until(&ann, &id, |export| export["state"] == "done").await;
    let (status, _, bytes) = download(&ann, done["download"].as_str().expect("a link")).await;
    assert_eq!(status, 200);
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).expect("a zip");
    assert_eq!((zip.len(), text(&mut zip, "index.jsonl")), (1, String::new()));
    worker.stop().await;
}

#[tokio::test]
async fn there_is_an_end_to_asking() {
    let house = House::open().await;
    house.tenant("export-many", Isolation::Row).await;
    let ann = house.person("export-many", "admin").await;
    let first = ask(&ann).await;
    for _ in 1..acmedocs::exports::MOST_UNFINISHED {
        ask(&ann).await;
    }
    let refused = ann.post("/api/exports", json!({"format": "zip"})).await;
    refused.must_be_problem(429);
    assert!(refused.headers.contains_key("retry-after"));
    // Nobody works here, so all of them wait; one less makes room for one more.
    assert_eq!(ann.delete(&format!("/api/exports/{first}")).await.status, 204);
    assert_eq!(ann.get(&format!("/api/exports/{first}")).await.json["state"], "cancelled");
    ask(&ann).await;
    ann.post("/api/exports", json!({"format": "tar"})).await.must_name("format");
    ann.post("/api/exports", json!({"format": "zip", "all": true})).await.must_name("all");
    ann.get(&format!("/api/exports/{}", uuid())).await.must_be_problem(404);
}

async fn jobs_of(house: &House, tenant: &TestTenant, kind: &str) -> Vec<uuid::Uuid> {
    let mut admin = house.cell.server().admin(&tenant.placement.database).await;
    let sql = "SELECT id FROM insula.job WHERE tenant_id = $1 AND kind = $2";
    sqlx::query_scalar(sql).bind(tenant.context.no.get()).bind(kind).fetch_all(&mut admin).await.expect("jobs")
}

#[tokio::test]
async fn asking_and_deleting_again_and_again_leaves_one_job() {
    let house = House::open().await;
    let tenant = house.tenant("export-again", Isolation::Row).await;
    let ann = house.person("export-again", "admin").await;
    for _ in 0..5 {
        let id = ask(&ann).await;
        assert_eq!(ann.delete(&format!("/api/exports/{id}")).await.status, 204);
    }
    assert_eq!(jobs_of(&house, &tenant, "export_removal").await.len(), 0, "nothing was begun");
    let left = jobs_of(&house, &tenant, "export_forgetting").await.len();
    assert!((1..=2).contains(&left), "one a day, and the day may have changed: {left}");
}

/// One that would come a day later gives way to one that is wanted now.
#[tokio::test]
async fn an_export_that_is_deleted_has_one_removal() {
    let house = House::open().await;
    let tenant = house.tenant("export-once", Isolation::Database).await;
    let ann = house.person("export-once", "admin").await;
    let at_work = worker(&house, &tenant);
    let id = ask(&ann).await;
    until(&ann, &id, |export| export["state"] == "done").await;
    assert_eq!(jobs_of(&house, &tenant, "export_removal").await.len(), 1, "a day later");
    at_work.stop().await;
    // However often it is asked for while nobody works.
    for _ in 0..3 {
        assert_eq!(ann.delete(&format!("/api/exports/{id}")).await.status, 204);
    }
    assert_eq!(jobs_of(&house, &tenant, "export_removal").await.len(), 2, "one is wanted, one is cancelled");
    let at_work = worker(&house, &tenant);
    until(&ann, &id, |export| export["state"] == "expired").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !jobs_of(&house, &tenant, "export_removal").await.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "another removal waits");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(house.objects_of(&tenant, &id), Vec::<String>::new());
    at_work.stop().await;
}

#[tokio::test]
async fn in_the_end_nothing_is_left() {
    let house = House::open().await;
    let tenant = house.tenant("export-forgotten", Isolation::Database).await;
    let ann = house.person("export-forgotten", "admin").await;
    let worker = worker(&house, &tenant);
    let (old, new) = (ask(&ann).await, ask(&ann).await);
    for id in [&old, &new] {
        until(&ann, id, |export| export["state"] == "done").await;
    }
    let mut admin = house.cell.server().admin(&tenant.placement.database).await;
    let sql = "UPDATE app.exports SET ended_at = now() - interval '8 days' WHERE id = $1::uuid";
    sqlx::query(sql).bind(&old).execute(&mut admin).await.expect("aged");
    for job in jobs_of(&house, &tenant, "export_forgetting").await {
        let now = sqlx::query("SELECT insula.job_retry($1, $2)").bind(tenant.context.no.get()).bind(job);
        now.execute(&mut admin).await.expect("at once");
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while ann.get(&format!("/api/exports/{old}")).await.status != 404 {
        assert!(tokio::time::Instant::now() < deadline, "it is remembered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(house.objects_of(&tenant, &old), Vec::<String>::new());
    assert_eq!(house.objects_of(&tenant, &new).len(), 1, "not its time");
    worker.stop().await;
}

#[tokio::test]
async fn a_plan_without_exports_has_none() {
    let house = House::open().await;
    house.tenant("export-none", Isolation::Row).await;
    let ann = house.person("export-none", "admin").await;
    let catalog = house.cell.catalog().await;
    let sql = r#"UPDATE catalog.tenant SET features = '{"max_concurrent_exports": 0}', version = version + 1 WHERE slug = 'export-none'"#;
    sqlx::query(sql).execute(&catalog).await.expect("changed");
    catalog.close().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let answer = ann.post("/api/exports", json!({"format": "zip"})).await;
        if answer.status == 403 {
            assert!(answer.text.contains("max_concurrent_exports"), "{}", answer.text);
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{}", answer.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Texts that do not compress, so that an export of some of them takes a while.
fn noise(n: u64) -> String {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..30_000).map(|_| format!("{:016x}", next())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_killed_worker_leaves_no_half_file() {
    let house = House::open().await;
    let tenant = house.tenant("export-killed", Isolation::Database).await;
    let ann = house.person("export-killed", "admin").await;
    for n in 0..40 {
        ann.write(&format!("Noise {n}"), &noise(n), &[]).await;
    }
    let id = ask(&ann).await;
    let first = worker(&house, &tenant);
    let at_work = |export: &Value| export["progress"]["documents"].as_i64().unwrap_or_default() > 0;
    let seen = until(&ann, &id, at_work).await;
    assert_eq!(seen["state"], "running", "it was over before it could be killed: {seen}");
    first.kill();
    assert_eq!(download(&ann, &format!("/exports/{id}/file")).await.0, 404);
    let second = worker(&house, &tenant);
    let done = until(&ann, &id, |export| export["state"] == "done").await;
    let (status, _, bytes) = download(&ann, done["download"].as_str().expect("a link")).await;
    assert_eq!(status, 200);
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).expect("whole");
    assert_eq!(zip.len(), 41);
    assert_eq!(text(&mut zip, "documents/DOC-000040 Noise 39.md"), noise(39));
    let left = house.objects_of(&tenant, &id);
    assert!(left.len() == 1 && !left[0].starts_with("1/"), "only the last attempt's file is there: {left:?}");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_that_runs_can_be_cancelled() {
    let house = House::open().await;
    let tenant = house.tenant("export-cancelled", Isolation::Database).await;
    let ann = house.person("export-cancelled", "admin").await;
    for n in 0..40 {
        ann.write(&format!("Noise {n}"), &noise(n), &[]).await;
    }
    let worker = worker(&house, &tenant);
    let id = ask(&ann).await;
    until(&ann, &id, |export| export["state"] == "running").await;
    assert_eq!(ann.delete(&format!("/api/exports/{id}")).await.status, 204);
    assert_eq!(ann.get(&format!("/api/exports/{id}")).await.json["state"], "cancelled");
    // Another, and more than the first, is not in its way.
    let other = ask(&ann).await;
    until(&ann, &other, |export| export["state"] == "done").await;
    assert_eq!(ann.get(&format!("/api/exports/{id}")).await.json["state"], "cancelled");
    assert_eq!(house.objects_of(&tenant, &id), Vec::<String>::new());
    worker.stop().await;
}
