//! Postgres is gone, and comes back.

use std::sync::Arc;
use std::time::Duration;

use insula_cluster::{Binaries, Cluster, ClusterConfig};
use insula_control::config::CellSpec;
use insula_control::model::CellState;
use insula_control::{Config, Control};
use insula_core::keys::Secret;
use insula_core::{CellName, Isolation, RootKey, TenantState};

use crate::house::{LONG, bundle, create};

/// A server that can be stopped and started again on its own data, on the same port.
struct Server {
    folder: tempfile::TempDir,
    root: RootKey,
    cell: CellName,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("permissions");
        Self { folder, root: RootKey::new(Secret::random().expect("randomness")), cell: "main".parse().expect("a name") }
    }

    async fn start(&self, port: Option<u16>) -> Cluster {
        let password = self.root.cell(&self.cell).role_password("insula_admin");
        let mut config = ClusterConfig::new(self.folder.path().join("data"), "insula_admin", &password);
        config.port = port;
        Cluster::start(&Binaries::find(None).expect("Postgres"), config).await.expect("a server")
    }
}

#[tokio::test]
async fn work_waits_for_postgres_and_goes_on() {
    let server = Server::new();
    let cluster = server.start(None).await;
    let port = cluster.port();
    let mut admin = <sqlx::PgConnection as sqlx::Connection>::connect(&cluster.admin_url("postgres")).await.expect("admin");
    sqlx::query("CREATE DATABASE insula_catalog").execute(&mut admin).await.expect("made");
    let mut config = Config::new(cluster.admin_url("insula_catalog"), server.root.clone());
    config.cells = vec![CellSpec {
        name: server.cell.clone(),
        region: "local".into(),
        labels: vec![],
        host: cluster.host().into(),
        port,
        app_url: None,
        capacity: 1000,
    }];
    config.lease = Duration::from_secs(2);
    config.backoff = Duration::from_millis(20);
    config.reconcile_every = Duration::from_millis(200);
    let control = Control::open(config).await.expect("a catalog");
    let background = control.start().await.expect("started");
    control.wait_ready(LONG).await.expect("prepared");
    let put = control.put_bundle("test", bundle()).await.expect("good");
    control.wait_operation(put.operation.expect("news").id, LONG).await.expect("applied");

    // Tenants of all kinds are under way when it goes, at once and without a word to anybody.
    let isolations = [Isolation::Row, Isolation::Schema, Isolation::Database];
    let asked: Vec<_> = (0..60)
        .map(|n| {
            let control = control.clone();
            tokio::spawn(async move { control.create_tenant("test", create(&format!("t-{n}"), isolations[n % 3]), None).await })
        })
        .collect();
    while control.status().await.is_ok_and(|s| s.tenants.get("active").is_none_or(|n| *n < 5)) {
        tokio::task::yield_now().await;
    }
    let killed = std::process::Command::new("kill").args(["-9", &cluster.pid().to_string()]).status().expect("kill");
    assert!(killed.success());
    cluster.wait().await;
    let mut accepted = Vec::new();
    let mut refused = 0;
    for asked in asked {
        match asked.await.expect("asked") {
            Ok(created) => accepted.push(created.operation.id),
            Err(error) => {
                assert!(error.transient(), "{error}");
                assert!(error.public().contains("try again"), "{}", error.public());
                refused += 1;
            }
        }
    }
    let error = control.create_tenant("test", create("while-away", Isolation::Row), None).await.expect_err("nobody there");
    assert_eq!(error.kind(), insula_core::Kind::Unavailable, "{error}");

    let cluster = Arc::new(server.start(Some(port)).await);
    for id in &accepted {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            assert!(tokio::time::Instant::now() < deadline, "an accepted tenant does not come");
            match control.wait_operation(*id, Duration::from_secs(5)).await {
                Ok(operation) if operation.state.finished() => {
                    assert_eq!(operation.state, insula_control::model::OperationState::Done, "{operation:?}");
                    break;
                }
                _ => tokio::task::yield_now().await,
            }
        }
    }
    println!("{} accepted, {refused} refused", accepted.len());
    let status = control.status().await.expect("status");
    assert!(status.tenants.get(TenantState::Active.as_str()).is_some_and(|n| *n >= i64::try_from(accepted.len()).expect("few")));
    assert!(status.cells.iter().all(|c| c.state == CellState::Ready));
    assert_eq!(insula_control::reconcile::orphans(&control).await.expect("looked"), vec![]);
    background.stop().await;
    drop(cluster);
}
