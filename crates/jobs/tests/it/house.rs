//! A database with the kit and a queue, a catalog that says who lives there, and kinds of jobs that write down what they did.

use std::time::Duration;

use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::{KeyRing, TenantContext};
use insula_data::{Data, DataConfig};
use insula_jobs::{DatabaseName, Job, JobContext, JobError, JobId, Jobs, KindRules, Worker, WorkerConfig};
use insula_planner::again::Backoff;
use insula_testkit::{TestServer, server};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};

/// `done`: who was worked for, and in which attempt. `effect`: what may be there once for each job.
pub(crate) const TABLES: &str = "CREATE TABLE done (id uuid NOT NULL, attempt integer NOT NULL, what text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (id, attempt));
    SELECT insula.tenant_table('done');
    CREATE TABLE effect (id uuid PRIMARY KEY, attempt integer NOT NULL);
    SELECT insula.tenant_table('effect')";

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
        Self::on(server().await, tenants).await
    }

    /// The same on a server of the test's own.
    pub(crate) async fn on(server: &'static TestServer, tenants: i64) -> Self {
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
            let mut bronze = fake::plan("bronze").expect("a name");
            // A transaction may stay open for longer than anything here waits.
            bronze.limits.idle_in_transaction_timeout_ms = 600_000;
            content.put_plan(bronze);
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
        (row.id, row.placement, row.state) = (route.id, insula_core::Placement::clone(&route.placement), route.state());
        change(&mut row);
        self.source.change(|content| content.put_tenant(row));
        self.catalog.refresh().await.expect("a refresh");
    }

    pub(crate) fn config(&self) -> WorkerConfig {
        let database = DatabaseName { cell: self.server.cell(), database: self.database.as_str().into() };
        WorkerConfig {
            databases: Some(vec![database]),
            // Long enough to be kept beside much other work.
            lease: Duration::from_secs(3),
            poll: Duration::from_millis(100),
            drain: Duration::from_secs(20),
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
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut admin = self.admin().await;
        loop {
            let met: bool = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut admin).await.expect("a condition");
            if met {
                return;
            }
            if tokio::time::Instant::now() > deadline {
                let state = "SELECT concat_ws(E'\\n',
                    (SELECT string_agg(x::text, E'\\n') FROM (SELECT count(*), j.tenant_id, j.lane, j.kind, j.state, min(j.attempt), max(j.attempt), min(j.due), max(j.due), min(j.error)
                                                               FROM insula.job j GROUP BY 2, 3, 4, 5 LIMIT 20) x),
                    (SELECT string_agg(l::text, E'\\n') FROM (SELECT * FROM insula.lane l LIMIT 20) l), (SELECT q::text FROM insula.queue q), clock_timestamp())";
                let state: String = sqlx::query_scalar(state).fetch_one(&mut admin).await.expect("a state");
                panic!("waited in vain for: {what}\n{state}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A worker by hand, in SQL.
pub(crate) struct ByHand {
    pub(crate) admin: PgConnection,
    me: i64,
}

impl ByHand {
    pub(crate) async fn new(house: &House) -> Self {
        let mut admin = house.admin().await;
        let begin = "SELECT insula.worker_begin('test', 3600000)";
        let me = sqlx::query_scalar(begin).fetch_one(&mut admin).await.expect("a worker");
        Self { admin, me }
    }

    /// Ends what it was given before, and takes: whose, and what.
    pub(crate) async fn work(&mut self, done: &[(i64, JobId)], want: i64) -> Vec<(i64, JobId)> {
        let (tenants, ids): (Vec<i64>, Vec<JobId>) = done.iter().copied().unzip();
        let sql = "SELECT tenant_id, id FROM insula.work($1, $2, $3, array_fill(1, ARRAY[cardinality($3)]), $4)";
        sqlx::query_as(sql).bind(self.me).bind(tenants).bind(ids).bind(want).fetch_all(&mut self.admin).await.expect("jobs")
    }

    /// Says how far the measured cost of a tenant's jobs was from what was charged, in units.
    pub(crate) async fn correct(&mut self, corrections: serde_json::Value) {
        let beat = "SELECT count(*) FROM insula.worker_beat($1, NULL, $2)";
        let alive: i64 =
            sqlx::query_scalar(beat).bind(self.me).bind(corrections).fetch_one(&mut self.admin).await.expect("a beat");
        assert_eq!(alive, 1);
    }

    /// Says how jobs ended that did more than go well.
    pub(crate) async fn settle(&mut self, ends: serde_json::Value) {
        let count = ends.as_array().map_or(0, Vec::len);
        let settle = "SELECT insula.settle($1, $2)";
        let believed: i64 =
            sqlx::query_scalar(settle).bind(self.me).bind(ends).fetch_one(&mut self.admin).await.expect("settled");
        assert_eq!(usize::try_from(believed), Ok(count));
    }

    /// Ends what it was given, and takes nothing; all of it in one attempt.
    pub(crate) async fn done(&mut self, done: &[(i64, JobId)], attempt: i32) {
        let (tenants, ids): (Vec<i64>, Vec<JobId>) = done.iter().copied().unzip();
        let sql = "SELECT count(*) FROM insula.work($1, $2, $3, array_fill($4, ARRAY[cardinality($3)]), 0)";
        sqlx::query(sql).bind(self.me).bind(tenants).bind(ids).bind(attempt).execute(&mut self.admin).await.expect("done");
    }

    /// The time has come for whatever lane waits for it.
    pub(crate) async fn wake(&mut self) {
        let wake = "UPDATE insula.lane SET wake_at = clock_timestamp() WHERE wake_at IS NOT NULL";
        sqlx::query(wake).execute(&mut self.admin).await.expect("woken");
    }

    /// Where a tenant's lane stands, and the virtual present: in units at weight 1.
    pub(crate) async fn stands(&mut self, tenant: i64) -> (f64, f64) {
        let sql = "SELECT l.start / 80640.0::float8, q.present / 80640.0::float8 FROM insula.lane l, insula.queue q WHERE l.tenant_id = $1";
        sqlx::query_as(sql).bind(tenant).fetch_one(&mut self.admin).await.expect("a lane")
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
