//! A durable server with a queue, its tenants, and jobs that do nothing but count.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::{KeyRing, TenantContext};
use insula_data::{Data, DataConfig};
use insula_jobs::{DatabaseName, Job, JobContext, JobError, Jobs, Worker, WorkerConfig};
use insula_testkit::{TestServer, durable_server};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row as _};

const DATABASE: &str = "queue";

/// Jobs that ran.
pub(super) static COUNT: AtomicI64 = AtomicI64::new(0);
/// Milliseconds from a stamp to its start.
pub(super) static WAITED: tokio::sync::Mutex<Vec<f64>> = tokio::sync::Mutex::const_new(Vec::new());

/// As the peer's: two small fields.
#[derive(Serialize, Deserialize)]
pub(super) struct Nothing {
    t: String,
    i: i64,
}

impl Nothing {
    pub(super) fn new(i: i64) -> Self {
        Self { t: "a".to_owned(), i }
    }
}

impl Job for Nothing {
    const KIND: &'static str = "noop";
    type Output = ();
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        COUNT.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// Says when it was made.
#[derive(Serialize, Deserialize)]
pub(super) struct Stamp(f64);

impl Stamp {
    pub(super) fn now() -> Self {
        Self(millis())
    }
}

fn millis() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1_000.0)
}

impl Job for Stamp {
    const KIND: &'static str = "stamp";
    type Output = ();
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        let waited = millis() - self.0;
        WAITED.lock().await.push(waited);
        Ok(())
    }
}

/// The server, its one queue, and who is in it.
pub(super) struct Ground {
    pub(super) server: TestServer,
    pub(super) data: Data,
    catalog: Catalog,
}

impl Ground {
    pub(super) async fn new(tenants: i64) -> Result<Self> {
        let server = durable_server().await;
        let mut admin = server.admin("postgres").await;
        insula_kit::prepare_server(&mut admin, &server.cell_key()).await?;
        insula_kit::create_database(&mut admin, DATABASE).await?;
        let mut admin = server.admin(DATABASE).await;
        insula_kit::install(&mut admin, DATABASE, &server.cell_key(), 1).await?;
        insula_kit::use_schema(&mut admin, "insula_app", "app").await?;
        sqlx::query("INSERT INTO insula.tenant (no, epoch) SELECT n, 1 FROM generate_series(1, $1::bigint) n")
            .bind(tenants)
            .execute(&mut admin)
            .await?;
        let fence = insula_kit::fence(&mut admin).await?;
        let source = FakeSource::new();
        source.change(|content| -> Result<()> {
            content.put_plan(fake::plan("bronze")?);
            content.put_cell(fake::cell("main", server.host(), server.port())?);
            content.put_database(fake::database("main", DATABASE, fence)?);
            for no in 1..=tenants {
                let mut row = fake::tenant(&format!("t{no}"), no, "bronze", "main")?;
                row.placement.database = DATABASE.into();
                content.put_tenant(row);
            }
            Ok(())
        })?;
        let catalog = Catalog::start(source, Options::default());
        catalog.ready().await;
        let keys = KeyRing::new([(server.cell(), server.cell_key())]);
        let data = Data::open(DataConfig { pool_connections: 16, ..DataConfig::default() }, catalog.clone(), keys);
        Ok(Self { server, data, catalog })
    }

    pub(super) fn tenant(&self, no: i64) -> Result<TenantContext> {
        let route = self.catalog.by_slug(&format!("t{no}")).context("no such tenant")?;
        Ok(TenantContext {
            tenant: route.id,
            no: route.no,
            slug: route.slug.clone(),
            plan: route.plan.name.clone(),
            principal: None,
            request_id: "bench".into(),
            proof: None,
            trace: None,
        })
    }

    pub(super) fn worker(&self, jobs: Jobs) -> Result<Worker> {
        let databases = Some(vec![DatabaseName { cell: self.server.cell(), database: DATABASE.into() }]);
        let keys = KeyRing::new([(self.server.cell(), self.server.cell_key())]);
        let config = WorkerConfig { databases, ..WorkerConfig::default() };
        Ok(Worker::start(jobs, self.data.clone(), self.catalog.clone(), keys, config)?)
    }

    pub(super) async fn count(&self, sql: &str) -> Result<i64> {
        let mut admin = self.server.admin(DATABASE).await;
        Ok(sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&mut admin).await?.try_get(0)?)
    }

    pub(super) async fn clear(&self) -> Result<()> {
        let mut admin = self.server.admin(DATABASE).await;
        let sql =
            "TRUNCATE insula.job, insula.job_end, insula.arrival, insula.lane; UPDATE insula.queue SET present = 0, floor = 0";
        sqlx::raw_sql(sql).execute(&mut admin).await?;
        Ok(())
    }

    /// No-op jobs, evenly for the first so many tenants, written as `insula.enqueue()` does but without their transactions.
    pub(super) async fn fill(&self, tenants: i64, jobs: i64) -> Result<()> {
        self.clear().await?;
        let mut admin = self.server.admin(DATABASE).await;
        let fill = "INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body)
                    SELECT 1 + n % $1, gen_random_uuid(), now() + n * interval '1 us', now(), 'noop', '{\"t\":\"a\",\"i\":1}' FROM generate_series(0, $2 - 1) n";
        sqlx::query(fill).bind(tenants).bind(jobs).execute(&mut admin).await?;
        let told = "INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT n, '', 0, '-infinity' FROM generate_series(1, $1::bigint) n";
        sqlx::query(told).bind(tenants).execute(&mut admin).await?;
        for sql in ["VACUUM ANALYZE insula.job", "CHECKPOINT"] {
            sqlx::raw_sql(sql).execute(&mut admin).await?;
        }
        Ok(())
    }

    /// Takes and ends batches; microseconds a job.
    pub(super) async fn take(&self, batches: usize, size: i64) -> Result<Vec<f64>> {
        let mut admin = self.server.admin(DATABASE).await;
        let sql = "SELECT tenant_id, id, attempt FROM insula.work(1, $1, $2, $3, $4)";
        let mut times = Vec::new();
        let (mut tenants, mut ids, mut attempts) = (Vec::<i64>::new(), Vec::<uuid::Uuid>::new(), Vec::<i32>::new());
        for batch in 0..=batches {
            let start = Instant::now();
            let rows = sqlx::query(sql).bind(&tenants).bind(&ids).bind(&attempts).bind(size).fetch_all(&mut admin).await?;
            let took: Duration = start.elapsed();
            // The first puts all lanes where they belong.
            if batch > 0 && !rows.is_empty() {
                times.push(took.as_secs_f64() * 1e6 / rows.len() as f64);
            }
            (tenants, ids, attempts) = (Vec::new(), Vec::new(), Vec::new());
            for row in rows {
                tenants.push(row.try_get(0)?);
                ids.push(row.try_get(1)?);
                attempts.push(row.try_get(2)?);
            }
        }
        Ok(times)
    }
}
