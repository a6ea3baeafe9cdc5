//! A control plane that can be killed and started again at its address, and its catalog for a test to write to.

use std::net::SocketAddr;
use std::time::Duration;

use insula_catalog::{Catalog, HttpSource, Options};
use insula_control::model::Scope;
use insula_control::{Config, Control};
use insula_core::TenantId;
use insula_testkit::server;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

pub(crate) struct EdgeHouse {
    config: Config,
    pub(crate) address: SocketAddr,
    /// A key of scope `edge`.
    pub(crate) key: String,
    pub(crate) key_id: Uuid,
    pub(crate) admin: PgConnection,
    running: Option<Running>,
    /// Bound and never listened on: while the control plane is dead, nobody else is given its port.
    _place: tokio::net::TcpSocket,
}

struct Running {
    control: Control,
    /// Ends with everything on it at once, as a killed process does.
    runtime: tokio::runtime::Runtime,
}

impl EdgeHouse {
    pub(crate) async fn start() -> Self {
        let postgres = server().await;
        let name = postgres.create_database("edge").await;
        let config = Config::new(postgres.admin_url(&name), postgres.root_key());
        let control = Control::open(config.clone()).await.unwrap();
        let made = control.create_api_key("test", "gateway", Scope::Edge).await.unwrap();
        let place = tokio::net::TcpSocket::new_v4().unwrap();
        place.set_reuseaddr(true).unwrap();
        place.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = place.local_addr().unwrap();
        let admin = postgres.admin(&name).await;
        let mut house = Self { config, address, key: made.secret, key_id: made.key.id, admin, running: None, _place: place };
        house.floor().await;
        house.resume().await;
        house
    }

    /// A plan, a cell and its pool.
    async fn floor(&mut self) {
        self.sql(
            "INSERT INTO catalog.cell (name, provider, state, host, port) VALUES ('main', 'registered', 'ready', 'h', 1);
             INSERT INTO catalog.cell_database (cell, name, purpose, fence) VALUES ('main', 'insula_pool', 'pool', 1)",
        )
        .await;
    }

    /// A client that may read.
    pub(crate) async fn reader(&self) -> insula_api::Client {
        let control = Control::open(self.config.clone()).await.unwrap();
        let key = control.create_api_key("test", "reader", Scope::Read).await.unwrap().secret;
        insula_api::Client::new(&format!("http://{}", self.address), &key).unwrap()
    }

    pub(crate) async fn sql(&mut self, sql: impl Into<String>) {
        sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(&mut self.admin).await.unwrap();
    }

    /// An active tenant, made as the control plane makes one.
    pub(crate) async fn tenant(&mut self, slug: &str) -> TenantId {
        let id = TenantId::new();
        self.sql(format!(
            "BEGIN;
             INSERT INTO catalog.tenant (id, slug, name, plan, state) VALUES ('{id}', '{slug}', '{slug}', 'bronze', 'provisioning');
             INSERT INTO catalog.placement (tenant, cell, database, schema, isolation, epoch)
             VALUES ('{id}', 'main', 'insula_pool', 'app', 'row', 1);
             UPDATE catalog.tenant SET state = 'active' WHERE id = '{id}';
             COMMIT"
        ))
        .await;
        id
    }

    pub(crate) async fn set_state(&mut self, id: TenantId, state: &str) {
        self.sql(format!("UPDATE catalog.tenant SET state = '{state}' WHERE id = '{id}'")).await;
    }

    /// As `kill -9`: whoever was connected is cut off, and nobody listens any more.
    pub(crate) fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            // A thread that drives a runtime may not wait for the end of another.
            let ending = std::thread::spawn(move || running.runtime.shutdown_timeout(Duration::from_secs(60)));
            ending.join().ok();
        }
    }

    /// Starts it at its address.
    pub(crate) async fn resume(&mut self) {
        let (config, address) = (self.config.clone(), self.address);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let control = runtime.spawn(async move {
            let control = Control::open(config).await.unwrap();
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            tokio::spawn(axum::serve(listener, insula_control::rest::router(control.clone())).into_future());
            control
        });
        self.running = Some(Running { control: control.await.unwrap(), runtime });
    }

    pub(crate) fn control(&self) -> &Control {
        &self.running.as_ref().unwrap().control
    }

    /// The catalog's own address.
    pub(crate) fn admin_url(&self) -> &str {
        &self.config.catalog_url
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn source(&self) -> HttpSource {
        HttpSource::new(&self.url(), &self.key).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        client.get(self.url() + path).bearer_auth(&self.key)
    }
}

impl Drop for EdgeHouse {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Options under which nothing is found by polling, so that a test of pushing tests pushing.
pub(crate) fn no_polling() -> Options {
    Options { poll: Duration::from_secs(3600), ..Options::default() }
}

pub(crate) async fn ready(catalog: &Catalog) {
    tokio::time::timeout(Duration::from_secs(60), catalog.ready()).await.expect("the catalog is loaded");
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
