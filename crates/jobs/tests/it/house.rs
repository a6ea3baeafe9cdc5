//! A database with the kit and a queue, a catalog that says who lives there, and kinds of jobs that write down what they did.

use std::time::Duration;

use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::{KeyRing, TenantContext};
use insula_data::{Data, DataConfig};
use insula_jobs::{DatabaseName, Job, JobContext, JobError, Jobs, KindRules, Worker, WorkerConfig};
use insula_planner::again::Backoff;
use insula_testkit::{TestServer, server};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};

/// `done`: who was worked for, and in which attempt. `busy`: what is being worked on; a second worker would not get in.
pub(crate) const TABLES: &str = "CREATE TABLE done (id uuid NOT NULL, attempt integer NOT NULL, what text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (id, attempt));
    SELECT insula.tenant_table('done')";

pub(crate) struct House {
    pub(crate) server: &'static TestServer,
    pub(crate) database: String,
    pub(crate) source: FakeSource,
    pub(crate) catalog: Catalog,
    pub(crate) data: Data,
}

impl House {
    /// With tenants 1 to `tenants` of plan `bronze`.
    pub(crate) async fn new(tenants: i64) -> Self {
        let server = server().await;
        let database = new_database(server).await;
        let mut admin = server.admin(&database).await;
        insula_kit::use_schema(&mut admin, "insula_app", "app").await.expect("use_schema");
        let sql = format!("BEGIN; SET LOCAL ROLE insula_owner; SET LOCAL search_path = app; {TABLES}; COMMIT");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.expect("a migration");
        sqlx::query("INSERT INTO insula.tenant (no, epoch) SELECT n, 1 FROM generate_series(1, $1::bigint) n")
            .bind(tenants)
            .execute(&mut admin)
            .await
            .expect("tenants");
        let source = FakeSource::new();
        let fence = insula_kit::fence(&mut admin).await.expect("a fence");
        let cell = server.cell();
        source.change(|content| {
            content.put_plan(fake::plan("bronze").expect("a name"));
            for (name, weight) in [("silver", 2), ("gold", 4), ("platinum", 8)] {
                let mut plan = fake::plan(name).expect("a name");
                plan.tier.weight = weight;
                content.put_plan(plan);
            }
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
        let data = Data::open(DataConfig::default(), catalog.clone(), Self::keys_of(server));
        Self { server, database, source, catalog, data }
    }

    fn keys_of(server: &TestServer) -> KeyRing {
        KeyRing::new([(server.cell(), server.cell_key())])
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
            principal: Some("user-1".into()),
            request_id: "test".into(),
            proof: None,
            trace: None,
        }
    }

    /// Gives a tenant another plan, or changes its row otherwise.
    pub(crate) async fn change(&self, no: i64, change: impl FnOnce(&mut insula_catalog::row::TenantRow)) {
        let route = self.catalog.by_slug(&format!("t{no}")).expect("a registered tenant");
        let mut row = fake::tenant(&format!("t{no}"), no, route.plan.name.as_str(), "main").expect("names");
        (row.id, row.placement, row.state) = (route.id, route.placement.clone(), route.state);
        change(&mut row);
        self.source.change(|content| content.put_tenant(row));
        self.catalog.refresh().await.expect("a refresh");
    }

    pub(crate) fn config(&self) -> WorkerConfig {
        let database = DatabaseName { cell: self.server.cell(), database: self.database.as_str().into() };
        WorkerConfig {
            databases: Some(vec![database]),
            lease: Duration::from_millis(800),
            poll: Duration::from_millis(100),
            drain: Duration::from_secs(5),
            ..WorkerConfig::default()
        }
    }

    pub(crate) fn worker(&self, jobs: Jobs) -> Worker {
        self.worker_with(jobs, self.config())
    }

    pub(crate) fn worker_with(&self, jobs: Jobs, config: WorkerConfig) -> Worker {
        Worker::start(jobs, self.data.clone(), self.catalog.clone(), Self::keys_of(self.server), config).expect("a worker")
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut self.admin().await).await.expect("a count")
    }

    /// Waits until nothing waits or runs.
    pub(crate) async fn empty(&self) {
        self.until("the queue to be empty", "SELECT count(*) = 0 FROM insula.job").await;
    }

    /// Waits until a session waits for another's lock.
    pub(crate) async fn until_one_waits(&self) {
        let sql = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.until("somebody to wait", sql).await;
    }

    /// Waits for a condition in SQL.
    pub(crate) async fn until(&self, what: &str, sql: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let mut admin = self.admin().await;
        loop {
            let met: bool = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut admin).await.expect("a condition");
            if met {
                return;
            }
            if tokio::time::Instant::now() > deadline {
                let state = "SELECT coalesce(string_agg(x::text, E'\\n'), '') FROM (SELECT j.tenant_id, j.kind, j.state, j.attempt, j.error, l.*
                               FROM insula.job j LEFT JOIN insula.lane l USING (tenant_id, lane) LIMIT 10) x";
                let state: String = sqlx::query_scalar(state).fetch_one(&mut admin).await.expect("a state");
                panic!("waited in vain for: {what}\n{state}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) async fn new_database(server: &TestServer) -> String {
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

/// Quick retries, for tests.
pub(crate) const QUICK: Backoff = Backoff { first: Duration::from_millis(20), most: Duration::from_millis(100) };

/// Does nothing.
#[derive(Serialize, Deserialize)]
pub(crate) struct Nothing;

impl Job for Nothing {
    const KIND: &'static str = "nothing";
    type Output = ();
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        Ok(())
    }
}

/// Writes down that it ran, and takes its time.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) what: String,
    pub(crate) millis: u64,
}

impl Note {
    pub(crate) fn new(what: &str, millis: u64) -> Self {
        Self { what: what.to_owned(), millis }
    }
}

impl Job for Note {
    const KIND: &'static str = "note";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { backoff: QUICK, attempts: 50, ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        if self.millis > 0 {
            tokio::time::sleep(Duration::from_millis(self.millis)).await;
        }
        let mut tx = context.begin().await?;
        sqlx::query("INSERT INTO done (id, attempt, what) VALUES ($1, $2, $3)")
            .bind(context.id())
            .bind(context.attempt())
            .bind(&self.what)
            .execute(&mut tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}
