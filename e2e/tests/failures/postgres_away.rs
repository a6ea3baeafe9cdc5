//! Postgres is gone for a minute, in the middle of requests and sign-ups, and comes back.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use insula_cluster::{Binaries, Cluster, ClusterConfig};
use insula_e2e::client::User;
use insula_e2e::secrets::Secrets;
use insula_e2e::up::{Up, bin, kill_9};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::writers::{Writers, all_there, until};

/// As the promise is worded; `INSULA_E2E_SECONDS` shortens it while one works on the test.
fn length() -> Duration {
    Duration::from_secs(std::env::var("INSULA_E2E_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60))
}

/// Nobody waits longer than this for an answer, whatever has happened.
const PATIENCE: Duration = Duration::from_secs(15);

/// The backends of a killed server outlive it for a moment, and what they have answered is on its way for another.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A server that `up` was told of and does not look after: it comes back when somebody starts it.
struct Server(PathBuf);

impl Server {
    async fn start(&self, port: Option<u16>) -> Result<Cluster> {
        let mut config = ClusterConfig::new(self.0.clone(), "somebody", "the-password-of-somebody");
        config.port = port;
        Ok(Cluster::start(&Binaries::find(None)?, config).await?)
    }
}

async fn in_time(asked: impl Future<Output = Result<(StatusCode, Value)>>) -> Result<(StatusCode, Value)> {
    tokio::time::timeout(PATIENCE, asked).await.context("no answer in time")?
}

/// Refused as unavailable, in time, with a problem body that tells nothing of the inside.
fn is_a_clear_refusal(what: &str, (status, answer): &(StatusCode, Value), secrets: &Secrets) -> Result<()> {
    ensure!(*status == StatusCode::SERVICE_UNAVAILABLE, "{what}: {status} {answer}");
    let text = answer.to_string();
    ensure!(answer["title"].is_string() && secrets.told_by(&text).is_none(), "{what}: {text}");
    let inside = ["127.0.0.1", "refused", "insula_", "sqlx"];
    ensure!(!inside.iter().any(|t| text.contains(t)), "{what}: too much is told: {text}");
    Ok(())
}

async fn sign_up(up: &Up, slug: &str) -> Result<(StatusCode, Value)> {
    let url = format!("{}/v1/tenants", up.ready.control_url.trim_end_matches('/'));
    let body = json!({"slug": slug, "plan": "bronze"});
    let answer = Client::new().post(url).bearer_auth(&up.ready.admin_key).json(&body).send().await?;
    Ok((answer.status(), answer.json().await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_minute_without_postgres_is_told_clearly_and_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let server = Server(folder.path().join("postgres"));
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let cluster = server.start(None).await?;
    let mut command = Command::new(bin("insula")?);
    command.env("INSULA_CATALOG_SERVER", cluster.admin_url("postgres"));
    let up = Arc::new(Up::start_as(&data, command, &["--no-demo"])?);
    let mut secrets = Secrets::of(&up)?;
    let mut users = Vec::new();
    for (slug, isolation) in [("away-row", "row"), ("away-schema", "schema"), ("away-db", "database")] {
        let tenant = up.tenant(slug, "gold", isolation)?;
        let user = User::log_in(&up, &tenant).await?;
        secrets.add_tenant(&tenant);
        secrets.add("a session's token", user.token());
        users.push(user);
    }
    let writers = Writers::start(&users);
    writers.progress("first writes", 30).await?;
    let sign_ups = start_sign_ups(&up).await?;

    kill_9(cluster.pid())?;
    let gone = Instant::now();
    cluster.wait().await;
    let (mut refused, mut settled) = (0_u32, None);
    while gone.elapsed() < length() {
        let is_quiet = gone.elapsed() > LAST_WORDS;
        for (tenant, user) in users.iter().enumerate() {
            let answer = in_time(user.json(Method::GET, "/api/documents?limit=1", None)).await?;
            if is_quiet || answer.0 != StatusCode::OK {
                is_a_clear_refusal(&format!("tenant {tenant}"), &answer, &secrets)?;
                refused += 1;
            }
        }
        let answer = in_time(sign_up(&up, "while-away")).await?;
        if is_quiet || answer.0 != StatusCode::ACCEPTED {
            is_a_clear_refusal("a sign-up", &answer, &secrets)?;
        }
        ensure!(up.pid_of("app").is_ok() && up.pid_of("control").is_ok(), "a process ended because Postgres did");
        if is_quiet {
            let count = writers.count();
            ensure!(*settled.get_or_insert(count) == count, "a write was acknowledged by nobody");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{refused} requests refused while Postgres was away");

    let _cluster = server.start(Some(cluster.port())).await?;
    for tenant in 0..users.len() {
        let from = writers.count_of(tenant);
        until("every tenant writes again", || writers.count_of(tenant) > from + 5).await?;
    }
    finish_sign_ups(&up, sign_ups).await?;
    let acknowledged = writers.finish().await;
    all_there(&users, &acknowledged).await?;
    println!("{} acknowledged writes, all there", acknowledged.len());
    secrets.nowhere_told(&up)?;
    Arc::into_inner(up).context("nobody else holds it")?.stop()
}

type SignUps = Vec<(String, tokio::task::JoinHandle<Result<()>>)>;

/// Tenants of all kinds on their way; returns once the catalog knows the first.
async fn start_sign_ups(up: &Arc<Up>) -> Result<SignUps> {
    let started = (0..6).map(|n| {
        let (slug, isolation) = (format!("on-its-way-{n}"), ["row", "schema", "database"][n % 3]);
        let (up, name) = (Arc::clone(up), slug.clone());
        (slug, tokio::task::spawn_blocking(move || up.tenant(&name, "gold", isolation).map(|_| ())))
    });
    let started: SignUps = started.collect();
    until("a sign-up is on its way", || up.insula(&["tenant", "show", "on-its-way-0"]).is_ok()).await?;
    Ok(started)
}

/// What was accepted is carried out; what was not is not there, and can be asked for again.
async fn finish_sign_ups(up: &Arc<Up>, sign_ups: SignUps) -> Result<()> {
    for (slug, task) in sign_ups {
        if let Err(error) = task.await? {
            let said = format!("{error:#}");
            ensure!(said.contains("error: ") && !said.contains("panicked"), "{slug}: {said}");
        }
        until(&format!("{slug} is there"), || match up.insula(&["tenant", "show", &slug]) {
            Ok(tenant) => tenant["state"] == "active",
            Err(_) => up.tenant(&slug, "gold", "row").is_ok(),
        })
        .await?;
    }
    Ok(())
}
