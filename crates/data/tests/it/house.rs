//! A database with the kit, a catalog that says where its tenants live, and the data plane on both.

use std::time::Duration;

use insula_catalog::fake::{self, FakeSource};
use insula_catalog::row::TenantRow;
use insula_catalog::{Catalog, Options};
use insula_core::{Isolation, KeyRing, TenantContext, TenantNo};
use insula_data::{Data, DataConfig, TenantTx};
use insula_testkit::{TestServer, server};
use sqlx::{AssertSqlSafe, PgConnection};

const TABLE: &str = "CREATE TABLE documents (id bigint NOT NULL, body text NOT NULL DEFAULT '', PRIMARY KEY (id));
    SELECT insula.tenant_table('documents')";

pub(crate) struct House {
    pub(crate) server: &'static TestServer,
    pub(crate) database: String,
    pub(crate) source: FakeSource,
    pub(crate) catalog: Catalog,
    pub(crate) data: Data,
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(DataConfig::default()).await
    }

    /// A pool of its own with `documents` in it, and tenants 1 to 3 of plan `bronze`, none of whom has a row.
    pub(crate) async fn with(config: DataConfig) -> Self {
        Self::on(server().await, config).await
    }

    pub(crate) async fn on(server: &'static TestServer, config: DataConfig) -> Self {
        let database = new_database(server).await;
        let mut admin = server.admin(&database).await;
        insula_kit::use_schema(&mut admin, "insula_app", "app").await.expect("use_schema");
        migrate(&mut admin, "app", TABLE).await;
        let source = FakeSource::new();
        let cell = server.cell();
        source.change(|c| {
            c.put_plan(fake::plan("bronze").expect("a name"));
            c.put_cell(fake::cell(cell.as_str(), server.host(), server.port()).expect("a name"));
        });
        let catalog = Catalog::start(source.clone(), Options::default());
        let keys = KeyRing::new([(server.cell(), server.cell_key())]);
        catalog.ready().await;
        let data = Data::open(config, catalog.clone(), keys);
        let house = Self { server, database, source, catalog, data };
        house.publish_database(&house.database).await;
        for no in 1..=3 {
            house.register(no, "bronze").await;
        }
        house
    }

    pub(crate) async fn admin(&self) -> PgConnection {
        self.server.admin(&self.database).await
    }

    /// Tells the catalog a database and its fence as it is now.
    pub(crate) async fn publish_database(&self, database: &str) {
        let fence = insula_kit::fence(&mut self.server.admin(database).await).await.expect("a fence");
        let row = fake::database(self.server.cell().as_str(), database, fence).expect("a name");
        self.source.change(|c| c.put_database(row));
    }

    pub(crate) async fn publish(&self, row: TenantRow) {
        self.source.change(|c| c.put_tenant(row));
        self.catalog.refresh().await.expect("a refresh");
    }

    /// A `row` tenant, in the database and in the catalog.
    pub(crate) async fn register(&self, no: i64, plan: &str) -> TenantContext {
        let mut row = fake::tenant(&format!("t{no}"), no, plan, self.server.cell().as_str()).expect("names");
        row.placement.database = self.database.as_str().into();
        insula_kit::register_tenant(&mut self.admin().await, row.no, 1, None).await.expect("register_tenant");
        self.publish(row).await;
        self.tenant(no)
    }

    /// A tenant with a login of its own, in a database of its own.
    pub(crate) async fn register_dedicated(&self, no: i64) -> TenantContext {
        let database = new_database(self.server).await;
        let mut row = fake::tenant(&format!("t{no}"), no, "bronze", self.server.cell().as_str()).expect("names");
        row.placement.database = database.as_str().into();
        row.placement.isolation = Isolation::Database;
        let (role, mut admin) = (row.placement.role(), self.server.admin(&database).await);
        let password = self.server.cell_key().role_password(&role);
        insula_kit::create_login(&mut admin, &role, &password, row.no, &database, "app").await.expect("create_login");
        insula_kit::register_tenant(&mut admin, row.no, 1, Some(&role)).await.expect("register_tenant");
        migrate(&mut admin, "app", TABLE).await;
        self.publish_database(&database).await;
        self.publish(row).await;
        self.tenant(no)
    }

    pub(crate) fn tenant(&self, no: i64) -> TenantContext {
        let route = self.catalog.by_slug(&format!("t{no}")).expect("a registered tenant");
        TenantContext {
            tenant: route.id,
            no: route.no,
            slug: route.slug.clone(),
            plan: route.plan.name.clone(),
            principal: None,
            request_id: "test".into(),
            proof: None,
            trace: None,
        }
    }

    /// The row that the catalog has of a tenant, to publish it changed.
    pub(crate) fn row(&self, no: i64) -> TenantRow {
        let route = self.catalog.by_slug(&format!("t{no}")).expect("a registered tenant");
        let mut row = fake::tenant(&format!("t{no}"), no, route.plan.name.as_str(), "main").expect("names");
        (row.id, row.placement, row.state) = (route.id, insula_core::Placement::clone(&route.placement), route.state());
        row
    }

    pub(crate) async fn begin(&self, no: i64) -> TenantTx {
        self.data.begin(&self.tenant(no)).await.expect("a transaction")
    }

    /// Adds a document and commits.
    pub(crate) async fn add(&self, no: i64, id: i64, body: &str) {
        let mut tx = self.begin(no).await;
        let insert = "INSERT INTO documents (id, body) VALUES ($1, $2)";
        sqlx::query(insert).bind(id).bind(body).execute(&mut tx).await.expect("a row");
        tx.commit().await.expect("a commit");
    }

    /// What a tenant sees.
    pub(crate) async fn bodies(&self, no: i64) -> Vec<String> {
        let mut tx = self.begin(no).await;
        sqlx::query_scalar("SELECT body FROM documents ORDER BY id").fetch_all(&mut tx).await.expect("rows")
    }

    /// Backends of the application's role in the house's database, in a state or in any.
    pub(crate) async fn backends(&self, state: Option<&str>) -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND usename <> 'insula_admin'
                     AND ($2::text IS NULL OR state = $2)";
        let mut admin = self.server.admin("postgres").await;
        sqlx::query_scalar(count).bind(&self.database).bind(state).fetch_one(&mut admin).await.expect("a count")
    }
}

async fn new_database(server: &TestServer) -> String {
    // Roles belong to the server, and tests of one binary run side by side.
    static ROLES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one_at_a_time = ROLES.lock().await;
    let mut admin = server.admin("postgres").await;
    insula_kit::prepare_server(&mut admin, &server.cell_key()).await.expect("prepare_server");
    let database = format!("d{}", &uuid::Uuid::new_v4().simple().to_string()[..16]);
    insula_kit::create_database(&mut admin, &database).await.expect("create_database");
    let mut admin = server.admin(&database).await;
    insula_kit::install(&mut admin, &database, &server.cell_key(), 1).await.expect("install");
    database
}

async fn migrate(admin: &mut PgConnection, schema: &str, sql: &str) {
    let sql = format!("BEGIN; SET LOCAL ROLE insula_owner; SET LOCAL search_path = {schema}; {sql}; COMMIT");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.expect("a migration");
}

/// Waits for a condition, at most a minute.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn no(n: i64) -> TenantNo {
    TenantNo::new(n).expect("positive")
}
