//! One private Postgres per test binary.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use insula_cluster::{Binaries, Cluster, ClusterConfig, Durability};
use insula_core::keys::Secret;
use insula_core::{CellKey, CellName, RootKey};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

/// The superuser of every test server.
pub const ADMIN_ROLE: &str = "insula_admin";

/// A private Postgres, for one process.
#[derive(Debug)]
pub struct TestServer {
    cluster: Cluster,
    cell: CellName,
    root: RootKey,
    _sweeper: Child,
}

/// The server that all tests of this binary share: unsynced, so fast. For the cell `main`.
pub async fn server() -> &'static TestServer {
    static SERVER: OnceCell<TestServer> = OnceCell::const_new();
    SERVER.get_or_init(|| TestServer::start("main", Durability::Scratch)).await
}

/// A second one, for the cell `second`: what "another server" means.
pub async fn second_server() -> &'static TestServer {
    static SERVER: OnceCell<TestServer> = OnceCell::const_new();
    SERVER.get_or_init(|| TestServer::start("second", Durability::Scratch)).await
}

/// A server of the caller's own, unsynced.
pub async fn own_server() -> TestServer {
    TestServer::start("main", Durability::Scratch).await
}

/// A server of the caller's own that syncs like a real one: for tests that kill it.
pub async fn durable_server() -> TestServer {
    TestServer::start("main", Durability::Full).await
}

impl TestServer {
    async fn start(cell: &str, durability: Durability) -> Self {
        let cell: CellName = cell.parse().expect("a cell name");
        // One host side for all servers of a process, as in life.
        static ROOT: OnceLock<RootKey> = OnceLock::new();
        let root = ROOT.get_or_init(|| RootKey::new(Secret::random().expect("randomness"))).clone();
        let binaries = Binaries::find(None).expect("Postgres for the tests");
        let folder = tempfile::Builder::new().prefix("insula-test-").tempdir().expect("a folder").keep();
        open_for_server(&folder);
        let mut config = ClusterConfig::new(folder.join("data"), ADMIN_ROLE, &root.cell(&cell).role_password(ADMIN_ROLE));
        config.durability = durability;
        // Whatever is tested is tested with the server module, too: `make test` does so.
        if let Ok(module) = std::env::var("INSULA_SERVER_MODULE") {
            // The server's account may not be able to reach the original.
            let copy = folder.join("insula_enter.so");
            std::fs::copy(&module, &copy).expect("INSULA_SERVER_MODULE is a file: scripts/server-module builds it");
            config.settings.push((insula_core::placement::SERVER_MODULE_SETTING.to_owned(), copy.display().to_string()));
        }
        let cluster = Cluster::start(&binaries, config).await.expect("a private Postgres");
        let sweeper = sweep_after(&folder);
        Self { cluster, cell, root, _sweeper: sweeper }
    }

    /// A hot standby of this server that follows it by streaming: the same cell, the same passwords.
    pub async fn replica(&self) -> Self {
        let folder = tempfile::Builder::new().prefix("insula-test-").tempdir().expect("a folder").keep();
        open_for_server(&folder);
        let config = ClusterConfig { data_dir: folder.join("data"), port: None, log: None, ..self.cluster.config().clone() };
        let binaries = Binaries::find(None).expect("Postgres for the tests");
        let cluster = self.cluster.start_replica(&binaries, config).await.expect("a standby");
        Self { cluster, cell: self.cell.clone(), root: self.root.clone(), _sweeper: sweep_after(&folder) }
    }

    /// Kills the server as a power cut would, and waits until it is gone. [`TestServer::revive`] brings it back.
    pub async fn kill(&self) {
        let all = std::process::Command::new("kill").args(["-QUIT", &self.pid().to_string()]).status();
        assert!(all.expect("kill").success());
        self.cluster.wait().await;
    }

    /// Starts a killed server again, with its data and at its port.
    pub async fn revive(&mut self) {
        self.cluster = self.start_again().await;
    }

    /// The same for one that is shared: it runs as long as what is returned lives.
    pub async fn start_again(&self) -> Cluster {
        let config = ClusterConfig { port: Some(self.port()), ..self.cluster.config().clone() };
        let binaries = Binaries::find(None).expect("Postgres for the tests");
        Cluster::start(&binaries, config).await.expect("the server again")
    }

    /// Where it listens.
    #[must_use]
    pub fn host(&self) -> &str {
        self.cluster.host()
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// The server process: to be killed by tests of a server of their own.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.cluster.pid()
    }

    /// A URL for the superuser `insula_admin`.
    #[must_use]
    pub fn admin_url(&self, database: &str) -> String {
        self.cluster.admin_url(database)
    }

    /// A URL for any other role of the cell, with its derived password.
    #[must_use]
    pub fn role_url(&self, role: &str, database: &str) -> String {
        let password = self.cell_key().role_password(role);
        format!("postgres://{role}:{password}@{}:{}/{database}?sslmode=disable", self.host(), self.port())
    }

    /// The cell that this server is.
    #[must_use]
    pub fn cell(&self) -> CellName {
        self.cell.clone()
    }

    /// The cell's key.
    #[must_use]
    pub fn cell_key(&self) -> CellKey {
        self.root.cell(&self.cell)
    }

    /// The root key.
    #[must_use]
    pub fn root_key(&self) -> RootKey {
        self.root.clone()
    }

    /// The cluster itself.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A superuser's connection.
    pub async fn admin(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.admin_url(database)).await.expect("a connection as superuser")
    }

    /// Makes a new, empty database with a name of its own, and returns the name.
    pub async fn create_database(&self, prefix: &str) -> String {
        let name = format!("{prefix}_{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let mut admin = self.admin("postgres").await;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE \"{name}\""))).execute(&mut admin).await.expect("a database");
        name
    }
}

/// The server may run in another account, which must be able to pass through.
fn open_for_server(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o711)).expect("permissions");
}

/// A static is never dropped and a killed process cleans nothing up, so a shell waits for the end of this process (the end
/// of its input), then for the server's, and removes the files.
fn sweep_after(folder: &Path) -> Child {
    use std::os::unix::process::CommandExt;
    let script =
        r#"cat >/dev/null; n=0; while kill -0 "$2" 2>/dev/null && [ $n -lt 300 ]; do n=$((n+1)); sleep 0.1; done; rm -rf "$1""#;
    Command::new("/bin/sh")
        .args(["-c", script, "sweep"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell")
}
