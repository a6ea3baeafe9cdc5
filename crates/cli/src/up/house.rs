//! Everything that runs on this machine, and the order in which it comes and goes.
//!
//! Always: servers come before what needs them and go after it; what is started is in here, so that it is stopped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use insula_cluster::{Binaries, ClusterConfig};
use insula_core::placement::{APP_ROLE, POOL_DATABASE, SERVER_MODULE_SETTING, role_of};
use insula_core::{CellName, KeyRing, Kind, RootKey};
use tokio::sync::Mutex;

use crate::error::Error;
use crate::up::catalog::{CellPlace, HostCatalog};
use crate::up::child::{Child, ChildSpec, DRAIN};
use crate::up::contexts;
use crate::up::folder::{DataFolder, write_secret};
use crate::up::module::ServerModule;
use crate::up::postgres::{ADMIN_ROLE, Server};
use crate::up::roster::{ReadyCell, Roster};
use crate::up::workers::Workers;

/// The cell that every machine has. Its application also serves the tenants of cells that have none of their own.
pub(crate) const MAIN: &str = "main";

/// How long a process may take to become ready: a catalog of a million tenants takes a while to read.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(120);

/// What runs here.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) folder: DataFolder,
    pub(crate) root_key: RootKey,
    pub(crate) roster: Roster,
    pub(crate) client: reqwest::Client,
    pub(crate) app_program: PathBuf,
    pub(crate) gateway: SocketAddr,
    pub(crate) control: SocketAddr,
    /// Who may have signed the certificates of cells' servers.
    pub(crate) cell_authorities: Option<PathBuf>,
    /// Settings of whom the application tells of events.
    pub(crate) telling: Vec<(&'static str, String)>,
    /// The application has no jobs.
    pub(crate) without_workers: bool,
    pub(crate) workers: Workers,
    binaries: Option<Binaries>,
    /// What its servers load, see [`SERVER_MODULE_SETTING`].
    server_module: ServerModule,
    /// Cells that there are keys for in the ring of [`MAIN`]'s application.
    pub(crate) keys: Mutex<Vec<CellName>>,
    servers: Mutex<BTreeMap<String, Server>>,
    apps: Mutex<BTreeMap<String, Child>>,
    control_child: Mutex<Option<Child>>,
    gateway_child: Mutex<Option<Child>>,
}

impl House {
    pub(crate) fn new(
        folder: DataFolder,
        root_key: RootKey,
        app_program: PathBuf,
        (binaries, server_module): (Option<Binaries>, ServerModule),
        addresses: (SocketAddr, SocketAddr),
    ) -> Self {
        Self {
            folder,
            root_key,
            roster: Roster::default(),
            client: reqwest::Client::new(),
            app_program,
            gateway: addresses.0,
            control: addresses.1,
            cell_authorities: None,
            telling: Vec::new(),
            without_workers: false,
            workers: Workers::default(),
            binaries,
            server_module,
            keys: Mutex::default(),
            servers: Mutex::default(),
            apps: Mutex::default(),
            control_child: Mutex::default(),
            gateway_child: Mutex::default(),
        }
    }

    /// Starts a cell's private server unless it runs; returns its port.
    pub(crate) async fn start_server(&self, cell: &CellName, settings: &[(&str, &str)]) -> Result<u16, Error> {
        if let Some(server) = self.servers.lock().await.get(cell.as_str()) {
            return Ok(server.port());
        }
        let binaries = match &self.binaries {
            Some(binaries) => binaries.clone(),
            None => Binaries::find(None)?,
        };
        let password = self.root_key.cell(cell).role_password(ADMIN_ROLE);
        let mut config = ClusterConfig::new(self.folder.cluster(cell.as_str()), ADMIN_ROLE, &password);
        config.log = Some(self.folder.log(&format!("postgres-{cell}")));
        config.settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        if let Some(module) = self.server_module.of(&config.data_dir, &binaries, &self.folder)? {
            config.settings.push((SERVER_MODULE_SETTING.to_owned(), module.display().to_string()));
        }
        let server = Server::start(cell.as_str(), &binaries, config, &self.roster).await?;
        let port = server.port();
        self.servers.lock().await.insert(cell.to_string(), server);
        Ok(port)
    }

    /// A URL for the superuser of a private server that runs here. Holds the password.
    pub(crate) async fn server_url(&self, cell: &str, database: &str) -> Option<String> {
        self.servers.lock().await.get(cell).map(|s| s.admin_url(database))
    }

    /// Notes in the ready file how a cell's server is reached: the shared pool, or in a dedicated cell `home`, its tenant's database with
    /// its tenant's login.
    pub(crate) fn show_cell(&self, place: &CellPlace, home: Option<&str>, admin_password: &str) {
        let CellPlace { name, host, port, tls, admin_role, .. } = place;
        let (database, role) = home.map_or((POOL_DATABASE, APP_ROLE.to_owned()), |home| (home, role_of(home)));
        let app_password = self.root_key.cell(name).role_password(&role);
        let dsn = |role: &str, password: &str| format!("postgres://{role}:{password}@{host}:{port}/{database}?sslmode={tls}");
        self.roster.cell(ReadyCell {
            name: name.to_string(),
            app_dsn: dsn(&role, &app_password),
            owner_dsn: dsn(admin_role, admin_password),
        });
    }

    /// Gives [`MAIN`]'s application a cell's key, before anybody learns that there is the cell.
    pub(crate) async fn add_key(&self, cell: &CellName) -> Result<(), Error> {
        let mut keys = self.keys.lock().await;
        if keys.contains(cell) {
            return Ok(());
        }
        self.write_ring(&self.ring_path(MAIN), keys.iter().chain(std::iter::once(cell)))?;
        keys.push(cell.clone());
        self.tell_workers(&keys).await
    }

    /// Takes the key of a cell that is gone from [`MAIN`]'s application.
    pub(crate) async fn drop_key(&self, cell: &CellName) -> Result<(), Error> {
        let mut keys = self.keys.lock().await;
        keys.retain(|c| c != cell);
        self.write_ring(&self.ring_path(MAIN), keys.iter())?;
        self.tell_workers(&keys).await
    }

    pub(crate) fn ring_path(&self, cell: &str) -> PathBuf {
        self.folder.run(&format!("app-{cell}.keys.json"))
    }

    pub(crate) fn write_ring<'a>(&self, path: &Path, cells: impl Iterator<Item = &'a CellName>) -> Result<(), Error> {
        let ring = KeyRing::new(cells.map(|c| (c.clone(), self.root_key.cell(c))));
        write_secret(path, &ring.to_json())
    }

    /// Starts a cell's application unless it runs; returns its base URL, which only the gateway is to know.
    pub(crate) async fn start_app(&self, cell: &CellName, catalog: &HostCatalog) -> Result<String, Error> {
        let mut apps = self.apps.lock().await;
        if let Some(app) = apps.get(cell.as_str()) {
            return Ok(app.base_url().to_owned());
        }
        let ring = self.ring_path(cell.as_str());
        if cell.as_str() != MAIN {
            self.write_ring(&ring, std::iter::once(cell))?;
        }
        let (listen, admin) = (free_address()?, free_address()?);
        // Behind the gateway: what it has not signed is not served.
        let jwks = contexts::write_public(self, cell.as_str())?;
        let env = [
            ("INSULA_JWKS_URL", format!("http://{}/.well-known/jwks.json", self.control)),
            ("INSULA_JWKS_FILE", jwks.display().to_string()),
            ("INSULA_CATALOG_URL", catalog.reader_url().to_owned()),
            ("INSULA_KEYRING", ring.display().to_string()),
            ("INSULA_LISTEN", listen.to_string()),
            ("INSULA_ADMIN_LISTEN", admin.to_string()),
            ("INSULA_CELL", cell.to_string()),
            ("INSULA_CONTROL_URL", format!("http://{}", self.control)),
            ("INSULA_STORE", self.folder.objects().display().to_string()),
            ("INSULA_CONTROL_KEY_FILE", self.folder.edge_key_file().display().to_string()),
            ("INSULA_USAGE_DIR", self.folder.run(&format!("usage-app-{cell}")).display().to_string()),
        ];
        let spec = ChildSpec {
            role: format!("app:{cell}"),
            program: self.app_program.clone(),
            args: vec!["serve".into()],
            env: env.into_iter().chain(self.told()).map(|(k, v)| (k.to_owned(), v)).collect(),
            log: self.folder.log(&format!("app-{cell}")),
            admin_url: format!("http://{admin}"),
            base_url: format!("http://{listen}"),
            drain: DRAIN,
        };
        let app = Child::start(spec, self.roster.clone());
        let url = app.base_url().to_owned();
        apps.insert(cell.to_string(), app);
        Ok(url)
    }

    /// What every process of the application is told: who may have signed the certificates of cells' servers, whom it may tell of events, and
    /// to give memory back. glibc puts up what it keeps of each heap to twice the largest piece that was ever freed; a password's hash frees 20 MB.
    pub(crate) fn told(&self) -> impl Iterator<Item = (&'static str, String)> {
        let authorities =
            self.cell_authorities.as_ref().map(|file| (insula_catalog::tls::AUTHORITIES, file.display().to_string()));
        let keep = ("MALLOC_TRIM_THRESHOLD_", (128 << 10).to_string());
        authorities.into_iter().chain([keep]).chain(self.telling.iter().cloned())
    }

    /// Waits until a cell's application is ready.
    pub(crate) async fn app_ready(&self, cell: &str) -> Result<(), Error> {
        let wait = self.apps.lock().await.get(cell).map(Child::readiness);
        match wait {
            Some(readiness) => readiness.wait(&self.client, READY_WITHIN).await,
            None => Err(Error::new(Kind::Internal, format!("there is no application for cell {cell}"), "")),
        }
    }

    /// Starts the control plane and waits until it is ready.
    pub(crate) async fn start_control(&self, config: &Path, admin: SocketAddr) -> Result<(), Error> {
        let child = self.start_role("control", config, admin, self.control)?;
        let readiness = child.readiness();
        *self.control_child.lock().await = Some(child);
        readiness.wait(&self.client, READY_WITHIN).await
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) async fn start_gateway(&self, config: &Path, admin: SocketAddr) -> Result<(), Error> {
        let child = self.start_role("gateway", config, admin, self.gateway)?;
        let readiness = child.readiness();
        *self.gateway_child.lock().await = Some(child);
        readiness.wait(&self.client, READY_WITHIN).await
    }

    /// Starts a role of this program.
    fn start_role(&self, role: &str, config: &Path, admin: SocketAddr, serves: SocketAddr) -> Result<Child, Error> {
        let program = std::env::current_exe()
            .map_err(|e| Error::new(Kind::Internal, format!("cannot find the insula program: {e}"), ""))?;
        // The control plane is seldom busy, and then with much at once: what it needed for that goes back at once, not when it is busy again.
        // Nor is it worth huge pages, of which a part that is in use keeps the rest.
        let env = [("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ALLOW_THP", "0")].map(|(name, value)| (name.into(), value.into()));
        let env = if role == "control" { env.into() } else { Vec::new() };
        let spec = ChildSpec {
            role: role.into(),
            program,
            args: vec![role.into(), "--config".into(), config.into()],
            env,
            log: self.folder.log(role),
            admin_url: format!("http://{admin}"),
            base_url: format!("http://{serves}"),
            drain: DRAIN,
        };
        Ok(Child::start(spec, self.roster.clone()))
    }

    /// Where a cell's application is served, if it runs.
    pub(crate) async fn app_url(&self, cell: &str) -> Option<String> {
        self.apps.lock().await.get(cell).map(|app| app.base_url().to_owned())
    }

    /// Waits until the control plane says that all of it is ready.
    pub(crate) async fn control_ready(&self) -> Result<(), Error> {
        let readiness = self.control_child.lock().await.as_ref().map(Child::readiness);
        let none = || Error::new(Kind::Internal, "there is no control plane", "");
        let readiness = readiness.ok_or_else(none)?;
        readiness.at(format!("http://{}", self.control)).wait(&self.client, READY_WITHIN).await
    }

    /// Stops a cell's worker, application and server, for good.
    pub(crate) async fn stop_cell(&self, cell: &str) {
        self.stop_worker(cell).await;
        if let Some(app) = self.apps.lock().await.remove(cell) {
            app.stop().await;
        }
        if let Some(server) = self.servers.lock().await.remove(cell) {
            server.stop().await;
        }
        self.roster.without_cell(cell);
        let _ = std::fs::remove_file(self.ring_path(cell));
    }

    /// Stops everything: the gateway and then the applications and workers finish what they have begun, then the control plane, then the servers.
    pub(crate) async fn stop(&self) {
        self.roster.withdraw();
        if let Some(gateway) = self.gateway_child.lock().await.take() {
            gateway.stop().await;
        }
        let apps = std::mem::take(&mut *self.apps.lock().await);
        let apps = futures_util::future::join_all(apps.into_values().map(Child::stop));
        tokio::join!(apps, self.stop_workers());
        if let Some(control) = self.control_child.lock().await.take() {
            control.stop().await;
        }
        let servers = std::mem::take(&mut *self.servers.lock().await);
        futures_util::future::join_all(servers.into_values().map(Server::stop)).await;
    }
}

/// A free port of the loopback, for whoever binds it next. Never one that was given out before: the system may offer a port again as long
/// as nobody has bound it, and processes start side by side.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    static GIVEN: std::sync::Mutex<std::collections::BTreeSet<u16>> = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Held until one is found that is new, so that the next offer is another.
    let mut held = Vec::new();
    loop {
        let bound = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) =
            bound.map_err(|e| Error::new(Kind::Unavailable, format!("no free port on the loopback: {e}"), ""))?;
        if given.insert(address.port()) {
            return Ok(address);
        }
        held.push(listener);
    }
}
