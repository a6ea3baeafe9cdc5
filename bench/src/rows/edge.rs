//! What the edge rows stand on: a control plane that serves a catalog over HTTP, and followers of it in processes of their own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use insula_catalog::{Catalog, HttpSource, Options};
use insula_control::model::Scope;
use insula_control::{Config, Control};
use insula_testkit::server;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::runtime::Runtime;

/// Says to a process of this program that it is a follower, and of what.
const FOLLOW: &str = "INSULA_BENCH_FOLLOW";

/// A control plane and its catalog.
pub(super) struct Edge {
    catalog: PgPool,
    pub(super) url: String,
    pub(super) key: String,
    serving: tokio::task::JoinHandle<()>,
}

impl Edge {
    pub(super) async fn start() -> Result<Self> {
        let postgres = server().await;
        let name = postgres.create_database("edge").await;
        let control = Control::open(Config::new(postgres.admin_url(&name), postgres.root_key())).await?;
        let key = control.create_api_key("bench", "edge", Scope::Edge).await?.secret;
        let catalog = control.catalog_pool().clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address: SocketAddr = listener.local_addr()?;
        let router = insula_control::rest::router(control);
        let serving = tokio::spawn(async move {
            // Ends with the row.
            let _ = axum::serve(listener, router).await;
        });
        let sql = "INSERT INTO catalog.cell (name, provider, state, host, port) VALUES ('main', 'registered', 'ready', 'h', 1);
             INSERT INTO catalog.cell_database (cell, name, purpose, fence) VALUES ('main', 'insula_pool', 'pool', 1)";
        sqlx::raw_sql(sql).execute(&catalog).await?;
        Ok(Self { catalog, url: format!("http://{address}"), key, serving })
    }

    /// See [`tenants`].
    pub(super) async fn tenants(&self, count: i64) -> Result<()> {
        tenants(&self.catalog, count).await
    }

    /// Nobody answers from now on.
    pub(super) fn stop(&self) {
        self.serving.abort();
    }
}

/// Tenants `t-1` to `t-COUNT` as a follower loads them, without a line in the feed for each: a fifth with settings of their own, 5%
/// with a custom domain, one in a hundred with limits of its own.
pub(super) async fn tenants(catalog: &PgPool, count: i64) -> Result<()> {
    let mut tx = catalog.begin().await?;
    sqlx::raw_sql("SET LOCAL session_replication_role = replica").execute(&mut *tx).await?;
    for sql in [
        "INSERT INTO catalog.tenant (id, slug, name, plan, state, settings, limits)
         SELECT gen_random_uuid(), 't-' || n, 'Tenant number ' || n, 'bronze', 'active',
             CASE WHEN n % 5 = 0 THEN jsonb_build_object('locale', 'en', 'time_zone', 'UTC', 'brand_name', 'Brand ' || n) ELSE '{}' END,
             CASE WHEN n % 100 = 0 THEN jsonb_build_object('max_users', n % 1000) ELSE '{}' END
         FROM generate_series(1, $1::bigint) n",
        "INSERT INTO catalog.placement (tenant, cell, database, schema, isolation, epoch)
         SELECT id, 'main', 'insula_pool', 'app', 'row', 1 FROM catalog.tenant WHERE no <= $1",
        "INSERT INTO catalog.domain (host, tenant, verified_at)
         SELECT 'www.' || slug || '.example', id, now() FROM catalog.tenant WHERE no % 20 = 0 AND no <= $1",
    ] {
        sqlx::query(sql).bind(count).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    sqlx::raw_sql("ANALYZE catalog.tenant; ANALYZE catalog.placement; ANALYZE catalog.domain").execute(catalog).await?;
    Ok(())
}

/// What a follower is told.
#[derive(Serialize, Deserialize)]
struct Orders {
    url: String,
    key: String,
    disk: Option<PathBuf>,
}

/// What a follower is asked.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Answers when it is ready, with the milliseconds since its start.
    Ready,
    /// Its resident memory, bytes, after reading these tenants `t-1` to `t-N` once.
    Memory(u32),
}

/// A follower in a process of its own.
pub(super) struct Follower {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Follower {
    pub(super) fn start(edge: &Edge, disk: Option<PathBuf>) -> Result<Self> {
        let orders = Orders { url: edge.url.clone(), key: edge.key.clone(), disk };
        let mut command = Command::new(std::env::current_exe()?);
        command.env(FOLLOW, serde_json::to_string(&orders)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (to, from) = (child.stdin.take().context("a pipe")?, child.stdout.take().context("a pipe")?);
        Ok(Self { child, to, from: BufReader::new(from) })
    }

    pub(super) fn ask(&mut self, ask: &Ask) -> Result<u64> {
        writeln!(self.to, "{}", serde_json::to_string(ask)?)?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        line.trim().parse().with_context(|| format!("the follower says {line:?}"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // As `kill -9`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Follows and answers until nobody asks any more, when this process was started for that.
///
/// # Errors
/// When it was told nonsense, or nobody listens.
pub fn follow_if_told() -> Result<bool> {
    let Ok(orders) = std::env::var(FOLLOW) else { return Ok(false) };
    let began = Instant::now();
    let orders: Orders = serde_json::from_str(&orders)?;
    let runtime = Runtime::new()?;
    let _inside = runtime.enter();
    let options = Options { disk: orders.disk, ..Options::default() };
    let catalog = Catalog::start(HttpSource::new(&orders.url, &orders.key)?, options);
    for line in std::io::stdin().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Ask::Ready => {
                runtime.block_on(catalog.ready());
                u64::try_from(began.elapsed().as_millis())?
            }
            Ask::Memory(active) => {
                for n in 1..=active {
                    if catalog.by_host(&format!("t-{n}.localhost")).is_none() {
                        bail!("tenant {n} is not known");
                    }
                }
                resident()?
            }
        };
        let mut out = std::io::stdout();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(true)
}

fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib * 1024)
}
