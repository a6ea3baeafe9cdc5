//! A control plane in a process of its own, as `insula control` runs it, with a cell on a durable Postgres, an application that answers at once, and
//! tenants made by its own REST API: for rows about what gateways do when it speaks, and when it is gone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use insula_api::Client;
use insula_api::cell::{RegisterCell, Tls};
use insula_api::plan::CreatePlan;
use insula_api::tenant::CreateTenant;
use insula_control::model::Scope;
use insula_control::{Config, Control};
use insula_core::keys::Secret;
use insula_core::{Isolation, Limits, RootKey, Tier};
use insula_testkit::TestServer;
use serde::{Deserialize, Serialize};

use super::crowd;
use super::door::{Door, child, told, two_free};
use super::edge;

/// The argument that makes this program such a control plane.
pub const CHILD: &str = "--control";

/// Its own tenants' plan: limits that do not bind.
const PLAN: &str = "wide";
const READY_WITHIN: Duration = Duration::from_secs(120);

/// What the process is told.
#[derive(Serialize, Deserialize)]
struct Orders {
    catalog_url: String,
    root_key: String,
    listen: SocketAddr,
    cell_logins: PathBuf,
}

/// See the module.
pub(super) struct House {
    child: Child,
    // It ends when this closes.
    _orders: ChildStdin,
    server: TestServer,
    _cell_logins: tempfile::NamedTempFile,
    addr: SocketAddr,
    url: String,
    edge_key: String,
    app: SocketAddr,
    /// The control plane's REST API, with every right.
    pub(super) client: Client,
}

impl House {
    /// Starts it all, with so many tenants more that are only known.
    pub(super) async fn start(known: i64) -> Result<Self> {
        let server = insula_testkit::durable_server().await;
        let name = server.create_database("house").await;
        let secret = Secret::random()?;
        let control =
            Control::open(Config::new(server.admin_url(&name), RootKey::new(Secret::from_hex(&secret.to_hex())?))).await?;
        let admin_key = control.create_api_key("bench", "admin", Scope::Admin).await?.secret;
        let edge_key = control.create_api_key("bench", "edge", Scope::Edge).await?.secret;
        // Only its owner may read such a file.
        let cell_logins = tempfile::NamedTempFile::new()?;
        let logins = serde_json::json!({"cells": {"main": server.admin_url("postgres")}});
        std::fs::write(cell_logins.path(), logins.to_string())?;
        let [addr, _] = two_free()?;
        let orders = Orders {
            catalog_url: server.admin_url(&name),
            root_key: secret.to_hex(),
            listen: addr,
            cell_logins: cell_logins.path().to_owned(),
        };
        let (child, input) = child(CHILD, &serde_json::to_string(&orders)?)?;
        let (url, app) = (format!("http://{addr}"), crowd::app(1_000, Duration::ZERO).await?);
        let client = Client::new(&url, &admin_key)?;
        let this = Self { child, _orders: input, addr, url, edge_key, app, client, _cell_logins: cell_logins, server };
        this.furnish().await?;
        edge::tenants(control.catalog_pool(), known).await?;
        Ok(this)
    }

    /// A cell and a plan.
    async fn furnish(&self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while tokio::net::TcpStream::connect(self.addr).await.is_err() {
            ensure!(Instant::now() < deadline, "the control plane does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let cell = RegisterCell {
            name: "main".parse()?,
            host: self.server.host().to_owned(),
            port: self.server.port(),
            tls: Tls::Disable,
            region: "local".into(),
            labels: vec![],
            app_url: Some(format!("http://{}", self.app)),
            capacity: 1_000_000,
            dedicated: false,
        };
        self.client.register_cell(&cell).await?;
        while self.client.cell(&cell.name).await?.value.kit_way.is_none() {
            ensure!(Instant::now() < deadline, "the cell is not prepared");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let limits = Limits {
            requests_per_second: 1_000_000,
            request_burst: 1_000_000,
            max_concurrent_requests: 10_000,
            ..Limits::default()
        };
        let tier = Tier { name: PLAN.into(), weight: 1, pool_guarantee: 0, pool_cap: 100 };
        let plan = CreatePlan { name: PLAN.parse()?, tier, isolation: Isolation::Row, limits, features: [].into() };
        self.client.create_plan(&plan).await?;
        Ok(())
    }

    /// A tenant that is at work, made as operators make them; with these limits in the place of its plan's.
    pub(super) async fn tenant(&self, slug: &str, limits: &[(&str, u64)]) -> Result<()> {
        let tenant = CreateTenant {
            slug: slug.parse()?,
            plan: PLAN.parse()?,
            name: None,
            isolation: None,
            cell: None,
            region: None,
            labels: vec![],
            admin_email: None,
            settings: Default::default(),
            features: Default::default(),
            limits: limits.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        };
        self.client.create_tenant(&tenant, true).await.with_context(|| format!("tenant {slug}"))?;
        Ok(())
    }

    /// A gateway that follows it.
    pub(super) fn door(&self, workers: usize) -> Result<Door> {
        Door::start(&self.url, &self.edge_key, self.app, workers)
    }

    /// As `kill -9`. Nobody starts it again.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether nobody listens in its place.
    pub(super) fn is_gone(&self) -> bool {
        std::net::TcpStream::connect(self.addr).is_err()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Is such a control plane, until nobody holds the other end of the input.
///
/// # Errors
/// When it cannot start.
pub fn serve() -> Result<()> {
    let (orders, closed): (Orders, _) = told()?;
    let mut config = Config::new(orders.catalog_url, RootKey::new(Secret::from_hex(&orders.root_key)?));
    config.cell_secrets = Some(orders.cell_logins);
    config.warm_databases = 0;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(orders.listen).await?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            closed.wait();
            let _ = stop.send(());
        });
        let shutdown = async {
            let _ = stopped.await;
        };
        Ok(insula_control::run(config, listener, shutdown).await?)
    })
}
