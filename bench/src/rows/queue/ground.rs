//! A durable server with a queue, its tenants, and jobs that do nothing but count.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::placement::{POOL_DATABASE, SCHEMAS_DATABASE};
use insula_core::{Isolation, KeyRing, TenantContext};
use insula_data::{Data, DataConfig};
use insula_jobs::{DatabaseName, Job, JobContext, JobError, Jobs, Worker, WorkerConfig};
use insula_testkit::{TestServer, durable_server};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row as _};

const DATABASE: &str = "queue";
/// Of the tenants after the ordinary ones.
pub(super) const WEIGHTS: [u32; 4] = [1, 2, 4, 8];

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

/// Jobs of the weighted tenants that ended.
pub(super) static SERVED: [AtomicI64; 4] = [const { AtomicI64::new(0) }; 4];

/// Takes a few milliseconds, and counts for its tenant.
#[derive(Serialize, Deserialize)]
pub(super) struct Brief(i64);

impl Job for Brief {
    const KIND: &'static str = "brief";
    type Output = ();
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        tokio::time::sleep(Duration::from_millis(4)).await;
        let which = usize::try_from(context.tenant().no.get() - self.0).unwrap_or(usize::MAX);
        SERVED.get(which).ok_or_else(|| JobError::dead("not one of the four"))?.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// The server, its one queue, and who is in it.
pub(super) struct Ground {
    pub(super) server: TestServer,
    pub(super) data: Data,
    catalog: Catalog,
    source: FakeSource,
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
            .bind(tenants + WEIGHTS.len() as i64)
            .execute(&mut admin)
            .await?;
        let fence = insula_kit::fence(&mut admin).await?;
        let source = FakeSource::new();
        source.change(|content| -> Result<()> {
            content.put_plan(fake::plan("bronze")?);
            content.put_cell(fake::cell("main", server.host(), server.port())?);
            content.put_database(fake::database("main", DATABASE, fence)?);
            for weight in WEIGHTS {
                let mut plan = fake::plan(&format!("weight-{weight}"))?;
                plan.tier.weight = weight;
                content.put_plan(plan);
            }
            let weighted = WEIGHTS.iter().zip(tenants + 1..).map(|(weight, no)| (no, format!("weight-{weight}")));
            for (no, plan) in (1..=tenants).map(|no| (no, "bronze".to_owned())).chain(weighted) {
                let mut row = fake::tenant(&format!("t{no}"), no, &plan, "main")?;
                row.placement.database = DATABASE.into();
                content.put_tenant(row);
            }
            Ok(())
        })?;
        let catalog = Catalog::start(source.clone(), Options::default());
        catalog.ready().await;
        let keys = KeyRing::new([(server.cell(), server.cell_key())]);
        let data = Data::open(DataConfig { pool_connections: 16, ..DataConfig::default() }, catalog.clone(), keys);
        Ok(Self { server, data, catalog, source })
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

    /// A tenant with a database of its own, and a worker that serves whatever there is in the cell.
    pub(super) async fn alone(&self, no: i64, jobs: Jobs) -> Result<(TenantContext, Worker)> {
        let (server, database) = (&self.server, "d0123456789abcdef");
        let mut admin = server.admin("postgres").await;
        for database in [POOL_DATABASE, SCHEMAS_DATABASE, database] {
            insula_kit::create_database(&mut admin, database).await?;
            let mut admin = server.admin(database).await;
            insula_kit::install(&mut admin, database, &server.cell_key(), 1).await?;
        }
        let mut admin = server.admin(database).await;
        let mut row = fake::tenant(&format!("t{no}"), no, "bronze", "main")?;
        row.placement.database = database.into();
        row.placement.isolation = Isolation::Database;
        let role = row.placement.role();
        insula_kit::register_tenant(&mut admin, row.no, 1, Some(&role)).await?;
        insula_kit::create_login(&mut admin, &role, &server.cell_key().role_password(&role), row.no, database, "app").await?;
        let fence = insula_kit::fence(&mut admin).await?;
        self.source.change(|content| -> Result<()> {
            for database in [POOL_DATABASE, SCHEMAS_DATABASE, database] {
                content.put_database(fake::database("main", database, fence)?);
            }
            content.put_tenant(row);
            Ok(())
        })?;
        self.catalog.refresh().await?;
        let keys = KeyRing::new([(server.cell(), server.cell_key())]);
        let worker = Worker::start(jobs, self.data.clone(), self.catalog.clone(), keys, WorkerConfig::default())?;
        Ok((self.tenant(no)?, worker))
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

    /// No-op jobs, evenly for the first so many tenants.
    pub(super) async fn fill(&self, tenants: i64, jobs: i64) -> Result<()> {
        self.fill_with(1, tenants, jobs, "noop", "{\"t\":\"a\",\"i\":1}").await
    }

    /// Jobs of a kind, evenly for so many tenants from the first, written as `insula.enqueue()` does but without their transactions: with ids that
    /// grow with time (UUIDv7), as it gives them.
    pub(super) async fn fill_with(&self, first: i64, tenants: i64, jobs: i64, kind: &str, body: &str) -> Result<()> {
        self.clear().await?;
        let mut admin = self.server.admin(DATABASE).await;
        let fill = "INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body)
                    SELECT $1 + n % $2, (lpad(to_hex(1770000000000 + n / 20), 12, '0') || '7' || left(h, 3) || '8' || right(h, 15))::uuid,
                           now() + n * interval '1 us', now(), $4, $5::json
                      FROM generate_series(0, $3 - 1) n, md5(n::text) h";
        sqlx::query(fill).bind(first).bind(tenants).bind(jobs).bind(kind).bind(body).execute(&mut admin).await?;
        let told = "INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT n, '', 0, '-infinity' FROM generate_series($1, $1 + $2 - 1) n";
        sqlx::query(told).bind(first).bind(tenants).execute(&mut admin).await?;
        for sql in ["VACUUM ANALYZE insula.job", "CHECKPOINT"] {
            sqlx::raw_sql(sql).execute(&mut admin).await?;
        }
        Ok(())
    }

    /// Takes and ends batches; microseconds a job, from the batch after the first so many.
    pub(super) async fn take(&self, before: usize, batches: usize, size: i64) -> Result<Vec<f64>> {
        let mut admin = self.server.admin(DATABASE).await;
        let sql = "SELECT tenant_id, id, attempt FROM insula.work(1, $1, $2, $3, $4)";
        let mut times = Vec::new();
        let (mut tenants, mut ids, mut attempts) = (Vec::<i64>::new(), Vec::<uuid::Uuid>::new(), Vec::<i32>::new());
        for batch in 0..before + batches {
            let start = Instant::now();
            let rows = sqlx::query(sql).bind(&tenants).bind(&ids).bind(&attempts).bind(size).fetch_all(&mut admin).await?;
            let took: Duration = start.elapsed();
            if batch >= before && !rows.is_empty() {
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
