//! `kill -9` of anything under load: what was acknowledged is there, and the rest goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use insula_e2e::client::User;
use insula_e2e::up::{Up, kill_9};
use reqwest::{Method, StatusCode};

/// Writers that note every acknowledged write, and survive whatever happens to the server.
struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<(usize, String)>>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Writers {
    fn start(users: &[User]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for (tenant, user) in users.iter().cloned().enumerate() {
            for lane in 0..3 {
                let (stop, acknowledged, user) = (Arc::clone(&stop), Arc::clone(&acknowledged), user.clone());
                tasks.spawn(async move {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        match user.write(&format!("Note {lane}-{n}"), "must not be lost").await {
                            Ok(id) => acknowledged.lock().unwrap().push((tenant, id)),
                            // Refused or cut: nothing was promised. Give the server room to come back.
                            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                        }
                    }
                });
            }
        }
        Self { stop, acknowledged, tasks }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    fn count_of(&self, tenant: usize) -> usize {
        self.acknowledged.lock().unwrap().iter().filter(|(t, _)| *t == tenant).count()
    }

    /// Waits until `more` further writes were acknowledged.
    async fn progress(&self, what: &str, more: usize) -> Result<()> {
        let from = self.count();
        until(what, || self.count() >= from + more).await
    }

    async fn finish(mut self) -> Vec<(usize, String)> {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        Arc::try_unwrap(self.acknowledged).unwrap().into_inner().unwrap()
    }
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) -> Result<()> {
    let limit = tokio::time::Instant::now() + Duration::from_secs(90);
    while !reached() {
        ensure!(tokio::time::Instant::now() < limit, "{what}: not within 90 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn all_there(users: &[User], acknowledged: &[(usize, String)]) -> Result<()> {
    for (tenant, id) in acknowledged {
        let (status, answer) = users[*tenant].json(Method::GET, &format!("/api/documents/{id}"), None).await?;
        ensure!(status == StatusCode::OK, "acknowledged document {id} of tenant {tenant} is gone: {status} {answer}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acknowledged_writes_survive_kills() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let up = Up::start(&data)?;
    let mut users = Vec::new();
    for (slug, plan, isolation) in
        [("kill-row", "bronze", "row"), ("kill-schema", "silver", "schema"), ("kill-db", "gold", "database")]
    {
        let tenant = up.tenant(slug, plan, isolation)?;
        users.push(User::log_in(&up, &tenant).await?);
    }
    let writers = Writers::start(&users);
    writers.progress("first writes", 50).await?;

    // The control plane is off the hot path: writes go on without it, and it comes back.
    let control = up.pid_of("control")?;
    kill_9(control)?;
    writers.progress("writes without the control plane", 50).await?;
    until("control restarted", || up.pid_of("control").is_ok_and(|pid| pid != control)).await?;

    // A database server: recovery, and all tenants write again.
    let postgres = up.pid_of("postgres")?;
    kill_9(postgres)?;
    for tenant in 0..users.len() {
        let from = writers.count_of(tenant);
        until("every tenant writes again after a database crash", || writers.count_of(tenant) > from + 5).await?;
    }

    // The gateway, and what is behind it.
    let gateway = up.pid_of("gateway")?;
    kill_9(gateway)?;
    until("gateway restarted", || up.pid_of("gateway").is_ok_and(|pid| pid != gateway)).await?;
    writers.progress("writes after the gateway's restart", 50).await?;
    let app = up.pid_of("app")?;
    kill_9(app)?;
    until("application restarted", || up.pid_of("app").is_ok_and(|pid| pid != app)).await?;
    writers.progress("writes after the application's restart", 50).await?;

    // All at once, in the middle of writes; then a new `up` on the same folder.
    up.kill()?;
    let acknowledged = writers.finish().await;
    let up = Up::start(&data)?;
    let users: Vec<User> = users.iter().map(|user| user.at(&up)).collect();
    all_there(&users, &acknowledged).await?;
    println!("{} acknowledged writes, all there", acknowledged.len());
    up.stop()
}
