//! Databases with the kit, and a catalog that says who lives in which.

use std::sync::Arc;
use std::time::Duration;

use insula_catalog::fake::{self, FakeSource};
use insula_catalog::row::TenantRow;
use insula_catalog::{Catalog, Options};
use insula_core::{KeyRing, TenantContext, TenantNo, TenantState};
use insula_data::{Data, DataConfig, TenantTx};
use insula_events::{EventId, Relay, RelayConfig, Sink, publish};
use insula_testkit::{TestServer, server};
use sqlx::{AssertSqlSafe, PgConnection};

/// `done`: what a consumer wrote when it handled an event.
const TABLES: &str =
    "CREATE TABLE done (id uuid NOT NULL, n bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), times bigint NOT NULL DEFAULT 1);
    SELECT insula.tenant_table('done')";

pub(crate) struct House {
    pub(crate) server: &'static TestServer,
    pub(crate) database: String,
    pub(crate) source: FakeSource,
    pub(crate) catalog: Catalog,
    pub(crate) data: Data,
}

impl House {
    /// With tenants 1 to `tenants`.
    pub(crate) async fn new(tenants: i64) -> Self {
        let server = server().await;
        let database = new_database(server).await;
        let mut admin = server.admin(&database).await;
        sqlx::query("INSERT INTO insula.tenant (no, epoch) SELECT n, 1 FROM generate_series(1, $1::bigint) n")
            .bind(tenants)
            .execute(&mut admin)
            .await
            .expect("tenants");
        let source = FakeSource::new();
        let fence = insula_kit::fence(&mut admin).await.expect("a fence");
        let cell = server.cell();
        source.change(|content| {
            let mut bronze = fake::plan("bronze").expect("a name");
            // A transaction may stay open for longer than anything here waits.
            bronze.limits.idle_in_transaction_timeout_ms = 600_000;
            content.put_plan(bronze);
            content.put_cell(fake::cell(cell.as_str(), server.host(), server.port()).expect("a name"));
            content.put_database(fake::database(cell.as_str(), &database, fence).expect("a name"));
            for no in 1..=tenants {
                let mut row = fake::tenant(&format!("t{no}"), no, "bronze", cell.as_str()).expect("names");
                row.placement.database = database.as_str().into();
                content.put_tenant(row);
            }
        });
        let catalog = Catalog::start(source.clone(), Options::default());
        catalog.ready().await;
        let data = Data::open(DataConfig::default(), catalog.clone(), keys());
        Self { server, database, source, catalog, data }
    }

    pub(crate) async fn admin(&self) -> PgConnection {
        self.server.admin(&self.database).await
    }

    pub(crate) fn tenant(&self, no: i64) -> TenantContext {
        let route = self.catalog.by_slug(&format!("t{no}")).expect("a registered tenant");
        TenantContext {
            tenant: route.id,
            no: route.no,
            slug: route.slug.clone(),
            plan: route.plan.name.clone(),
            principal: Some("Ada, ö".into()),
            request_id: "test".into(),
            proof: None,
            trace: None,
        }
    }

    /// The tenant's row of the catalog, to be changed and put back.
    pub(crate) fn row(&self, no: i64) -> TenantRow {
        let route = self.catalog.by_slug(&format!("t{no}")).expect("a registered tenant");
        let mut row = fake::tenant(&format!("t{no}"), no, "bronze", "main").expect("names");
        (row.id, row.placement, row.state) = (route.id, insula_core::Placement::clone(&route.placement), route.state());
        row
    }

    /// In the catalog and in the database.
    pub(crate) async fn set_state(&self, no: i64, state: TenantState) {
        let mut row = self.row(no);
        row.state = state;
        let tenant = TenantNo::new(no).expect("a number");
        self.source.change(
            |content| if state == TenantState::Deleted { content.remove_tenant(row.id) } else { content.put_tenant(row) },
        );
        self.catalog.refresh().await.expect("a refresh");
        insula_kit::set_tenant(&mut self.admin().await, tenant, 1, state).await.expect("a state");
    }

    pub(crate) async fn begin(&self, no: i64) -> TenantTx {
        self.data.begin(&self.tenant(no)).await.expect("a transaction")
    }

    /// Publishes `{"n": n}` in a transaction of its own.
    pub(crate) async fn tell(&self, no: i64, topic: &str, n: i64) -> EventId {
        let mut tx = self.begin(no).await;
        let id = publish(&mut tx, topic, &serde_json::json!({ "n": n })).await.expect("published");
        tx.commit().await.expect("committed");
        id
    }

    pub(crate) fn relay(&self, sink: Arc<dyn Sink>) -> Relay {
        let config = RelayConfig {
            poll: Duration::from_millis(20),
            databases: Some(vec![(self.server.cell(), self.database.as_str().into())]),
            ..RelayConfig::default()
        };
        Relay::start(sink, self.catalog.clone(), keys, config)
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut self.admin().await).await.expect("a count")
    }

    pub(crate) async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.admin().await).await.expect("it runs");
    }

    /// Waits for a condition in SQL.
    pub(crate) async fn until(&self, what: &str, sql: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut admin = self.admin().await;
        loop {
            let met: bool = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut admin).await.expect("a condition");
            if met {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "waited in vain for: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn empty(&self) {
        self.until("the outbox to be empty", "SELECT count(*) = 0 FROM insula.event WHERE refused IS NULL").await;
    }
}

pub(crate) fn keys() -> KeyRing {
    let keys = KEYS.get().expect("a server was started");
    keys.clone()
}

static KEYS: std::sync::OnceLock<KeyRing> = std::sync::OnceLock::new();

/// One more database in the server, with the kit and the table.
pub(crate) async fn new_database(server: &TestServer) -> String {
    // Roles belong to the server, and tests of one binary run side by side.
    static ROLES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    KEYS.get_or_init(|| KeyRing::new([(server.cell(), server.cell_key())]));
    let _one_at_a_time = ROLES.lock().await;
    let mut admin = server.admin("postgres").await;
    insula_kit::prepare_server(&mut admin, &server.cell_key()).await.expect("prepare_server");
    let database = format!("d{}", &uuid::Uuid::new_v4().simple().to_string()[..16]);
    insula_kit::create_database(&mut admin, &database).await.expect("create_database");
    let mut admin = server.admin(&database).await;
    insula_kit::install(&mut admin, &database, &server.cell_key(), 1).await.expect("install");
    insula_kit::use_schema(&mut admin, "insula_app", "app").await.expect("use_schema");
    let sql = format!("BEGIN; SET LOCAL ROLE insula_owner; SET LOCAL search_path = app; {TABLES}; COMMIT");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.expect("a migration");
    database
}
