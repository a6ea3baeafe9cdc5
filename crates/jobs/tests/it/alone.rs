//! Tenants with a database of their own: workers are rung for, do not stay, and miss nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::placement::POOL_DATABASE;
use insula_core::{Isolation, KeyRing, TenantContext, TenantNo};
use insula_data::{Data, DataConfig};
use insula_jobs::{Enqueue, Jobs, Worker, WorkerConfig, enqueue, send};
use insula_testkit::{TestServer, server};
use sqlx::AssertSqlSafe;

use crate::house::{Note, Nothing, TABLES, new_database};

/// A street of houses with one tenant each, and the pool where workers listen.
struct Street {
    server: &'static TestServer,
    catalog: Catalog,
    data: Data,
    databases: Vec<Arc<str>>,
}

impl Street {
    async fn new(tenants: i64) -> Self {
        let server = server().await;
        pool(server).await;
        let source = FakeSource::new();
        let cell = server.cell();
        let fence = insula_kit::fence(&mut server.admin(POOL_DATABASE).await).await.expect("a fence");
        source.change(|content| {
            content.put_database(fake::database(cell.as_str(), POOL_DATABASE, fence).expect("a name"));
            content.put_plan(fake::plan("bronze").expect("a name"));
            content.put_cell(fake::cell(cell.as_str(), server.host(), server.port()).expect("a name"));
        });
        let mut databases = Vec::new();
        for no in 1..=tenants {
            let database: Arc<str> = new_database(server).await.into();
            let mut admin = server.admin(&database).await;
            let mut row = fake::tenant(&format!("t{no}"), no, "bronze", cell.as_str()).expect("names");
            row.placement.database = database.clone();
            row.placement.isolation = Isolation::Database;
            let (role, no) = (row.placement.role(), TenantNo::new(no).expect("positive"));
            insula_kit::register_tenant(&mut admin, no, 1, Some(&role)).await.expect("registered");
            let password = server.cell_key().role_password(&role);
            insula_kit::create_login(&mut admin, &role, &password, no, &database, "app").await.expect("a login");
            let sql = format!("BEGIN; SET LOCAL ROLE insula_owner; SET LOCAL search_path = app; {TABLES}; COMMIT");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.expect("a migration");
            let fence = insula_kit::fence(&mut admin).await.expect("a fence");
            source.change(|content| {
                content.put_database(fake::database(cell.as_str(), &database, fence).expect("a name"));
                content.put_tenant(row);
            });
            databases.push(database);
        }
        let catalog = Catalog::start(source, Options::default());
        catalog.ready().await;
        let data = Data::open(DataConfig::default(), catalog.clone(), Self::keys(server));
        Self { server, catalog, data, databases }
    }

    fn keys(server: &TestServer) -> KeyRing {
        KeyRing::new([(server.cell(), server.cell_key())])
    }

    fn tenant(&self, no: i64) -> TenantContext {
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

    /// Looks by itself only when nobody waits for that.
    fn worker(&self, visit: Duration) -> Worker {
        let config = WorkerConfig { visit, lease: Duration::from_secs(3), ..WorkerConfig::default() };
        let jobs = Jobs::new().with::<Nothing>().with::<Note>();
        Worker::start(jobs, self.data.clone(), self.catalog.clone(), Self::keys(self.server), config).expect("a worker")
    }

    async fn count(&self, no: usize, sql: &str) -> i64 {
        let mut admin = self.server.admin(&self.databases[no - 1]).await;
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut admin).await.expect("a count")
    }

    async fn until(&self, no: usize, what: &str, sql: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.count(no, sql).await != 1 {
            assert!(Instant::now() < deadline, "waited in vain for: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Workers' connections to a tenant's database.
    async fn connections(&self, no: usize) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'insula_worker' AND datname = '{}'",
            self.databases[no - 1]
        );
        self.count(no, &sql).await
    }

    /// The first visits are over, and nobody is there.
    async fn at_rest(&self) {
        for no in 1..=self.databases.len() {
            self.until(no, "the first visit", "SELECT (pg_sequence_last_value('insula.asleep') = 3)::int::bigint").await;
            let deadline = Instant::now() + Duration::from_secs(20);
            while self.connections(no).await > 0 {
                assert!(Instant::now() < deadline, "somebody stays in {}", self.databases[no - 1]);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn pool(server: &TestServer) {
    static POOL: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let make = async || {
        // Prepares the server, too.
        new_database(server).await;
        let mut admin = server.admin("postgres").await;
        insula_kit::create_database(&mut admin, POOL_DATABASE).await.expect("create_database");
        let mut admin = server.admin(POOL_DATABASE).await;
        insula_kit::install(&mut admin, POOL_DATABASE, &server.cell_key(), 1).await.expect("install");
    };
    POOL.get_or_init(make).await;
}

const DONE: &str = "SELECT count(*) FROM app.done";

#[tokio::test(flavor = "multi_thread")]
async fn the_bell_brings_a_worker_to_a_database_where_nobody_stays() {
    let street = Street::new(3).await;
    let worker = street.worker(Duration::from_secs(3_600));
    street.at_rest().await;
    // It would come by itself in an hour.
    for (no, what) in [(2, "a"), (3, "b"), (2, "c")] {
        send(&street.data, &street.tenant(no), &Note::new(what, 0), &Enqueue::default()).await.expect("sent");
    }
    street.until(2, "two jobs", "SELECT (count(*) = 2)::int::bigint FROM app.done").await;
    street.until(3, "one job", "SELECT (count(*) = 1)::int::bigint FROM app.done").await;
    assert_eq!(street.connections(1).await, 0, "nobody was rung for there");
    // A job that is rolled back rings for nobody.
    let mut tx = street.data.begin(&street.tenant(1)).await.expect("a transaction");
    enqueue(&mut tx, &Nothing, &Enqueue::default()).await.expect("enqueued");
    tx.rollback().await;
    street.at_rest().await;
    assert_eq!(street.count(1, DONE).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_by_time_or_is_left_by_a_dead_worker_is_found_without_a_bell() {
    let street = Street::new(2).await;
    let worker = street.worker(Duration::from_secs(3_600));
    street.at_rest().await;
    let later = Enqueue { delay: Duration::from_secs(7), ..Enqueue::default() };
    // Nothing to do yet, but the worker has to know until when.
    send(&street.data, &street.tenant(1), &Note::new("later", 0), &later).await.expect("sent");
    send(&street.data, &street.tenant(2), &Note::new("long", 1_500), &Enqueue::default()).await.expect("sent");
    street.until(2, "the long one to run", "SELECT count(*) FROM insula.job WHERE state = 'r'").await;
    worker.kill();
    let other = street.worker(Duration::from_millis(200));
    street.until(2, "the dead worker's job", DONE).await;
    assert_eq!(street.count(2, "SELECT attempt::bigint FROM app.done").await, 2);
    street.until(1, "the delayed job", DONE).await;
    other.stop().await;
}
