//! From outside, by requests: no row ever crosses.
//!
//! Each tenant writes a mark of its own into every document. Whatever any tenant is ever shown must carry its mark; the ids
//! that others wrote must not exist for it; its session must be worth nothing at another's host.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use insula_e2e::client::User;
use insula_e2e::secrets::Secrets;
use insula_e2e::up::{Up, wait_for};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::length;

#[derive(Default)]
struct Seen {
    /// Ids by tenant index.
    ids: Mutex<Vec<Vec<String>>>,
    checks: std::sync::atomic::AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_row_ever_crosses() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::start(&folder.path().join("data"))?;
    let mut secrets = Secrets::of(&up)?;
    let mut users = Vec::new();
    for isolation in ["row", "schema", "database", "cell"] {
        for n in 1..=2 {
            let tenant = up.tenant(&format!("{isolation}-{n}"), "gold", isolation)?;
            ensure!(tenant.isolation == isolation, "asked for {isolation}, got {}", tenant.isolation);
            let user = User::log_in(&up, &tenant).await?;
            secrets.add_tenant(&tenant);
            secrets.add("a session's token", user.token());
            users.push(user);
        }
    }
    let (users, started) = (Arc::new(users), Instant::now());
    let seen = load(&users, started + length()).await?;
    ensure!(started.elapsed() >= length(), "it ended early: {:?}", started.elapsed());
    let checks = seen.checks.load(std::sync::atomic::Ordering::Relaxed);
    let written: Vec<usize> = seen.ids.lock().unwrap().iter().map(Vec::len).collect();
    println!("{checks} answers checked in {:?}; documents written by tenant: {written:?}", started.elapsed());
    ensure!(written.iter().all(|n| *n > 10), "a tenant did hardly anything: {written:?}");
    // At rest, every tenant has exactly what it wrote.
    for (me, user) in users.iter().enumerate() {
        let mut mine = seen.ids.lock().unwrap()[me].clone();
        mine.sort();
        let mut listed = all_ids(user).await?;
        listed.sort();
        ensure!(listed == mine, "tenant {me}: {} listed, {} written", listed.len(), mine.len());
    }
    secrets.nowhere_told(&up)?;
    up.stop()
}

/// The same load, and the wall is taken down behind its back: it must see that. A test that cannot fail shows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_that_is_down_is_noticed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::start(&folder.path().join("data"))?;
    // Two on one server: there are two servers, so of three tenants two must meet.
    let mut tenants = (1..=3).map(|n| up.tenant(&format!("wall-{n}"), "gold", "row")).collect::<Result<Vec<_>>>()?;
    let cell = |tenant: &insula_e2e::up::Tenant| tenant.placement["cell"].as_str().unwrap_or_default().to_owned();
    tenants.sort_by_key(cell);
    let first = usize::from(cell(&tenants[0]) != cell(&tenants[1]));
    let pair = &tenants[first..first + 2];
    let there = up.ready.cells.iter().find(|c| c.name == cell(&pair[0])).context("their cell")?;
    let users = Arc::new(vec![User::log_in(&up, &pair[0]).await?, User::log_in(&up, &pair[1]).await?]);

    let mut owner = PgConnection::connect(&there.owner_dsn).await?;
    let table = "ALTER TABLE app.documents DISABLE ROW LEVEL SECURITY";
    sqlx::raw_sql(AssertSqlSafe(table.to_owned())).execute(&mut owner).await?;
    let outcome = load(&users, Instant::now() + Duration::from_secs(30)).await;
    let noticed = outcome.err().context("nobody noticed that the wall is down")?.to_string();
    ensure!(noticed.contains("'s row at") || noticed.contains("'s document"), "{noticed}");
    // The lint notices too.
    wait_for(Duration::from_secs(60), || Ok(up.insula(&["lint"]).is_err().then_some(())))?;
    up.stop()
}

/// Clients of all users at once, until `end` or the first thing that is wrong.
async fn load(users: &Arc<Vec<User>>, end: Instant) -> Result<Arc<Seen>> {
    let seen = Arc::new(Seen::default());
    *seen.ids.lock().unwrap() = vec![Vec::new(); users.len()];
    let mut tasks = tokio::task::JoinSet::new();
    for me in 0..users.len() {
        for lane in 0..2_u64 {
            let (users, seen) = (Arc::clone(users), Arc::clone(&seen));
            tasks.spawn(async move { one_client(me, lane, &users, &seen, end).await });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(seen)
}

async fn one_client(me: usize, lane: u64, users: &[User], seen: &Seen, end: Instant) -> Result<()> {
    let user = &users[me];
    let mark = mark(me);
    let mut round = lane;
    while Instant::now() < end {
        round += 1;
        // Titles and words are the same for all tenants; only the mark differs.
        let id = user.write(&format!("Report {round}"), &format!("quarterly numbers {mark} for everyone")).await?;
        seen.ids.lock().unwrap()[me].push(id.clone());
        let (status, document) = user.json(Method::GET, &format!("/api/documents/{id}"), None).await?;
        ensure!(status == StatusCode::OK && document.to_string().contains(&mark), "tenant {me}: {status} {document}");
        let change = json!({"title": format!("Report {round}, corrected")});
        let (status, changed) = user.json(Method::PATCH, &format!("/api/documents/{id}"), Some(&change)).await?;
        ensure!(status == StatusCode::OK, "tenant {me}: {status} {changed}");
        for path in ["/api/documents?limit=50", "/api/search?q=quarterly", "/api/search?q=everyone"] {
            let (status, answer) = user.json(Method::GET, path, None).await?;
            ensure!(status == StatusCode::OK, "tenant {me}: {path}: {status} {answer}");
            no_foreign_mark(me, users.len(), path, &answer)?;
        }
        let other = usize::try_from(round).unwrap_or(0) % users.len();
        if other != me {
            try_the_wall(me, other, users, seen).await?;
        }
        seen.checks.fetch_add(6, std::sync::atomic::Ordering::Relaxed);
    }
    Ok(())
}

/// Another tenant's ids do not exist here, and our session is worth nothing there.
async fn try_the_wall(me: usize, other: usize, users: &[User], seen: &Seen) -> Result<()> {
    let foreign = seen.ids.lock().unwrap()[other].last().cloned();
    if let Some(id) = foreign {
        for (method, body) in [(Method::GET, None), (Method::PATCH, Some(json!({"title": "mine now"}))), (Method::DELETE, None)] {
            let (status, answer) = users[me].json(method, &format!("/api/documents/{id}"), body.as_ref()).await?;
            ensure!(status == StatusCode::NOT_FOUND, "tenant {me} on {other}'s document: {status} {answer}");
        }
    }
    let (status, answer) = users[me].at_host_of(&users[other]).json(Method::GET, "/api/documents", None).await?;
    ensure!(status == StatusCode::UNAUTHORIZED, "tenant {me}'s session at {other}'s host: {status} {answer}");
    Ok(())
}

fn mark(tenant: usize) -> String {
    format!("mark{tenant}mark")
}

fn no_foreign_mark(me: usize, tenants: usize, path: &str, answer: &Value) -> Result<()> {
    let text = answer.to_string();
    for other in (0..tenants).filter(|other| *other != me) {
        ensure!(!text.contains(&mark(other)), "tenant {me} saw {other}'s row at {path}: {text}");
    }
    Ok(())
}

async fn all_ids(user: &User) -> Result<Vec<String>> {
    let (mut ids, mut after) = (Vec::new(), None::<String>);
    loop {
        let path = after.map_or("/api/documents?limit=100".to_owned(), |a| format!("/api/documents?limit=100&after={a}"));
        let (status, page) = user.json(Method::GET, &path, None).await?;
        ensure!(status == StatusCode::OK, "{status} {page}");
        ids.extend(page["items"].as_array().into_iter().flatten().filter_map(|d| d["id"].as_str().map(str::to_owned)));
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return Ok(ids),
        }
    }
}
