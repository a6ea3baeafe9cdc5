//! Against real servers, which the tests start, kill and damage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod life;
mod place;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use insula_cluster::{Binaries, Cluster, ClusterConfig, Durability};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// A folder that another account can pass through.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("insula-cluster-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
    folder
}

fn config(folder: &Path) -> ClusterConfig {
    let mut config = ClusterConfig::new(folder.join("data"), "boss", "hunter2");
    config.settings.push(("shared_buffers".into(), "16MB".into()));
    config
}

async fn start(config: ClusterConfig) -> Cluster {
    Cluster::start(&Binaries::find(None).unwrap(), config).await.unwrap()
}

/// One whose start is quick, for tests that do not ask what is on disk.
async fn start_scratch(folder: &Path) -> Cluster {
    start(ClusterConfig { durability: Durability::Scratch, ..config(folder) }).await
}

async fn connect(cluster: &Cluster) -> PgConnection {
    PgConnection::connect(&cluster.admin_url("postgres")).await.unwrap()
}
