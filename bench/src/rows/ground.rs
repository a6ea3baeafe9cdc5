//! What the transaction rows stand on: a cell with a tenant in each isolation mode among a hundred, and beside each tenant
//! table the same rows in a table without row security, for the peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use insula_catalog::{Catalog, Options, PgSource};
use insula_core::Isolation;
use insula_data::{Data, DataConfig};
use insula_testkit::{TestCell, TestTenant};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

/// Rows of each tenant.
pub(crate) const DOCUMENTS: i64 = 1_000;
/// Tenants in the pool beside the measured one.
const OTHERS: i64 = 99;
/// Clients of each side.
pub(crate) const CLIENTS: i64 = 4;
/// How long one side runs in a round.
const SLICE: Duration = Duration::from_millis(400);
/// The peer's login.
const PEER: &str = "plain_app";

const MIGRATION: &str = "
    CREATE TABLE documents (
        id bigint NOT NULL PRIMARY KEY, title text NOT NULL, body text NOT NULL, version int NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL DEFAULT now());
    SELECT insula.tenant_table('documents')";

/// The cell, its door, and the measured tenants.
pub(crate) struct Ground {
    /// The cell.
    pub(crate) cell: &'static TestCell,
    /// Access to it.
    pub(crate) data: Data,
}

impl Ground {
    /// Starts it all.
    pub(crate) async fn new() -> Result<Self> {
        let cell = TestCell::shared(MIGRATION).await;
        let mut admin = cell.server().admin("postgres").await;
        let role = format!("CREATE ROLE {PEER} LOGIN PASSWORD '{}'", cell.server().cell_key().role_password(PEER));
        sqlx::raw_sql(AssertSqlSafe(role)).execute(&mut admin).await?;
        let source = PgSource::connect(&cell.catalog_url())?;
        let catalog = Catalog::start(source, Options::default());
        catalog.ready().await;
        let config = DataConfig { pool_connections: 16, dedicated_connections: 8, ..DataConfig::default() };
        let data = Data::open(config, catalog.clone(), cell.key_ring());
        Ok(Self { cell, data })
    }

    /// A tenant with its documents, and their twin for the peer. Waits until the catalog shows it with the fence as it is.
    pub(crate) async fn tenant(&self, isolation: Isolation) -> Result<TestTenant> {
        let tenant = self.cell.tenant(&format!("bench-{isolation}"), "platinum", isolation).await;
        let (database, schema, no) = (&tenant.placement.database, &tenant.placement.schema, tenant.context.no);
        let mut admin = self.cell.server().admin(database).await;
        let last = if isolation == Isolation::Row { no.get() + OTHERS } else { no.get() };
        let twin = format!("plain_{schema}");
        let sql = format!(
            "INSERT INTO {schema}.documents (tenant_id, id, title, body)
                 SELECT t, d, 'Title ' || d, repeat('body ', 40) FROM generate_series({no}, {last}) t, generate_series(1, {DOCUMENTS}) d;
             CREATE SCHEMA {twin};
             CREATE TABLE {twin}.documents (LIKE {schema}.documents INCLUDING INDEXES);
             ALTER TABLE {twin}.documents ALTER created_at SET DEFAULT now(), ALTER version SET DEFAULT 1;
             INSERT INTO {twin}.documents SELECT * FROM {schema}.documents;
             GRANT CONNECT ON DATABASE {database} TO {PEER};
             GRANT USAGE ON SCHEMA {twin} TO {PEER}; GRANT ALL ON {twin}.documents TO {PEER}"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.context("documents")?;
        sqlx::raw_sql(AssertSqlSafe(format!("VACUUM ANALYZE {schema}.documents"))).execute(&mut admin).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("VACUUM ANALYZE {twin}.documents"))).execute(&mut admin).await?;
        let fence = insula_kit::fence(&mut admin).await?;
        let pool = self.cell.catalog().await;
        sqlx::query("UPDATE catalog.cell_database SET fence = $2 WHERE name = $1")
            .bind(&**database)
            .bind(fence)
            .execute(&pool)
            .await?;
        pool.close().await;
        let give_up = Instant::now() + Duration::from_secs(10);
        while self.data.begin(&tenant.context).await.is_err() {
            anyhow::ensure!(Instant::now() < give_up, "the catalog does not show the tenant");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(tenant)
    }

    /// The peer's pool on a tenant's twin: sqlx as it comes, but without the ping before each use, which would flatter us.
    pub(crate) async fn peer(&self, tenant: &TestTenant) -> Result<PgPool> {
        let url = self.cell.server().role_url(PEER, &tenant.placement.database);
        let path = format!("&options=-c%20search_path%3Dplain_{}", tenant.placement.schema);
        let pool = PgPoolOptions::new().max_connections(8).test_before_acquire(false).connect(&(url + &path)).await?;
        Ok(pool)
    }
}

/// Runs so many clients (`CLIENTS` at most), a task each, for a slice and answers transactions per second. A client is told its
/// number and how many it has done.
pub(crate) async fn rate<F, W>(clients: i64, client: &Arc<F>) -> Result<f64>
where
    F: Fn(i64, i64) -> W + Send + Sync + 'static,
    W: Future<Output = Result<()>> + Send + 'static,
{
    let start = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|number| {
            let client = Arc::clone(client);
            tokio::spawn(async move {
                let mut done = 0;
                while start.elapsed() < SLICE {
                    client(number, done).await?;
                    done += 1;
                }
                anyhow::Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for client in clients {
        done += client.await??;
    }
    Ok(f64::from(i32::try_from(done)?) / start.elapsed().as_secs_f64())
}
