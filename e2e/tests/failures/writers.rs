//! Load, and what was promised to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use insula_e2e::client::User;
use reqwest::{Method, StatusCode};

/// Writers that note every acknowledged write, and survive whatever happens to the server.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<(usize, String)>>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Writers {
    pub(crate) fn start(users: &[User]) -> Self {
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

    pub(crate) fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    pub(crate) fn count_of(&self, tenant: usize) -> usize {
        self.acknowledged.lock().unwrap().iter().filter(|(t, _)| *t == tenant).count()
    }

    /// Waits until `more` further writes were acknowledged.
    pub(crate) async fn progress(&self, what: &str, more: usize) -> Result<()> {
        let from = self.count();
        until(what, || self.count() >= from + more).await
    }

    pub(crate) async fn finish(mut self) -> Vec<(usize, String)> {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        Arc::try_unwrap(self.acknowledged).unwrap().into_inner().unwrap()
    }
}

/// Looks until it is so, a minute and a half at most.
pub(crate) async fn until(what: &str, mut reached: impl FnMut() -> bool) -> Result<()> {
    let limit = tokio::time::Instant::now() + Duration::from_secs(90);
    while !reached() {
        ensure!(tokio::time::Instant::now() < limit, "{what}: not within 90 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Every acknowledged write can be read.
pub(crate) async fn all_there(users: &[User], acknowledged: &[(usize, String)]) -> Result<()> {
    for (tenant, id) in acknowledged {
        let (status, answer) = users[*tenant].json(Method::GET, &format!("/api/documents/{id}"), None).await?;
        ensure!(status == StatusCode::OK, "acknowledged document {id} of tenant {tenant} is gone: {status} {answer}");
    }
    Ok(())
}
