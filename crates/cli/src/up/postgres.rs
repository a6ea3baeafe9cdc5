//! A private Postgres that is kept running.

use std::time::Duration;

use insula_cluster::{Binaries, Cluster, ClusterConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::up::roster::Roster;

/// The superuser of every private server.
pub(crate) const ADMIN_ROLE: &str = "insula_admin";

/// A server under supervision.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    config: ClusterConfig,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts it, waits until it takes connections, and keeps it running until [`Server::stop`].
    pub(crate) async fn start(name: &str, binaries: &Binaries, config: ClusterConfig, roster: &Roster) -> Result<Self, Error> {
        let cluster = Cluster::start(binaries, config).await?;
        let port = cluster.port();
        let mut config = cluster.config().clone();
        // The catalog and every pool know the port by now: a restart must come back on it.
        config.port = Some(port);
        let stop = CancellationToken::new();
        let role = format!("postgres:{name}");
        let task = tokio::spawn(supervise(role, binaries.clone(), config.clone(), cluster, roster.clone(), stop.clone()));
        Ok(Self { port, config, stop, task })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A URL for the superuser. Holds the password.
    pub(crate) fn admin_url(&self, database: &str) -> String {
        let ClusterConfig { admin_role, admin_password, .. } = &self.config;
        format!("postgres://{admin_role}:{admin_password}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Fast shutdown; waits.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

async fn supervise(
    role: String,
    binaries: Binaries,
    config: ClusterConfig,
    first: Cluster,
    roster: Roster,
    stop: CancellationToken,
) {
    let mut cluster = first;
    loop {
        roster.process(&role, cluster.pid(), None);
        tokio::select! {
            exit = cluster.wait() => tracing::error!(role, pid = cluster.pid(), "Postgres ended by itself: {exit}"),
            () = stop.cancelled() => {
                cluster.stop().await;
                roster.without_process(&role);
                return;
            }
        }
        roster.without_process(&role);
        cluster = tokio::select! {
            cluster = restart(&role, &binaries, &config) => cluster,
            () = stop.cancelled() => return,
        };
        tracing::warn!(role, pid = cluster.pid(), "Postgres runs again");
    }
}

/// Tries until it runs: whatever keeps it down (a full disk) may be mended meanwhile.
async fn restart(role: &str, binaries: &Binaries, config: &ClusterConfig) -> Cluster {
    let mut wait = Duration::from_millis(100);
    loop {
        match Cluster::start(binaries, config.clone()).await {
            Ok(cluster) => return cluster,
            Err(error) => tracing::error!(role, "{error}; trying again in {} ms", wait.as_millis()),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
}
