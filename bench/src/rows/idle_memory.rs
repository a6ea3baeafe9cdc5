//! Memory of a whole idle `insula up` with 10,000 registered tenants, beside that with 10.
//!
//! Memory is the sum of proportional set sizes (`/proc/PID/smaps_rollup`) of `up` and all that it started, Postgres too: shared pages count once. The
//! tenants are written into the catalog and the pooled database as provisioning leaves them; a password and an administrator for each would only take time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use insula_e2e::up::{Up, wait_for};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::load::descendants;
use crate::row::{Outcome, Row, Target};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "idle_memory", about: "memory of an idle insula up with 10,000 tenants beside that with 10", run };

const FEW: u32 = 10;
const MANY: u32 = 10_000;

fn run() -> Result<Vec<Outcome>> {
    let folder = tempfile::tempdir()?;
    let up = Up::start_with(&folder.path().join("data"), &["--no-demo"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    provisioned(&up)?;
    let few = with_tenants(&runtime, &up, 1, FEW)?;
    let many = with_tenants(&runtime, &up, FEW + 1, MANY)?;
    up.stop()?;
    let parts: Vec<String> =
        many.iter().map(|(name, now)| format!("{name} {:.0} to {now:.0}", few.get(name).unwrap_or(&0.0))).collect();
    let (few, many): (f64, f64) = (few.values().sum(), many.values().sum());
    let detail = format!("{few:.0} MB with {FEW} tenants, {many:.0} MB with {MANY} ({})", parts.join(", "));
    Ok(vec![Outcome::figure("10,000 tenants registered, idle: more memory", many - few, "MB", Target::AtMost(100.0), detail)])
}

/// Megabytes by program.
type Memory = BTreeMap<String, f64>;

/// Waits until every cell has its pre-made databases, which are made after the start and would be taken for the tenants' memory.
fn provisioned(up: &Up) -> Result<()> {
    let mut last = (serde_json::Value::Null, Instant::now());
    wait_for(Duration::from_secs(90), || {
        let warm = up.insula(&["status"])?["warm_databases"].take();
        if warm != last.0 {
            last = (warm, Instant::now());
        }
        let everywhere = last.0.as_object().is_some_and(|cells| cells.len() == up.ready.cells.len());
        Ok((everywhere && last.1.elapsed() > Duration::from_secs(5)).then_some(()))
    })
    .context("the cells do not get their pre-made databases")
}

/// Megabytes once tenants `from` to `to` are known everywhere.
fn with_tenants(runtime: &tokio::runtime::Runtime, up: &Up, from: u32, to: u32) -> Result<Memory> {
    runtime.block_on(register(up, from, to))?;
    let known = format!("{}/healthz", up.ready.gateway_url);
    let client = reqwest::Client::new();
    // The last one resolves: an application's snapshot has them all.
    wait_for(Duration::from_secs(60), || {
        let probe = client.get(known.replace("/healthz", "/api/documents")).header("host", format!("idle-{to}.localhost")).send();
        Ok((runtime.block_on(probe)?.status() != reqwest::StatusCode::NOT_FOUND).then_some(()))
    })
    .context("the application does not learn of the new tenants")?;
    settled(up)
}

/// The lowest reading once readings no longer fall: allocators and vacuum take a moment.
fn settled(up: &Up) -> Result<Memory> {
    let mut lowest = (f64::MAX, Memory::new(), Instant::now());
    wait_for(Duration::from_secs(60), || {
        let now = memory(up)?;
        let sum = now.values().sum();
        if sum < lowest.0 - 0.5 {
            lowest = (sum, now, Instant::now());
        }
        Ok((lowest.2.elapsed() > Duration::from_secs(8)).then(|| lowest.1.clone()))
    })
}

fn memory(up: &Up) -> Result<Memory> {
    let pids = descendants(u32::try_from(up.pid())?);
    ensure!(pids.len() > 3, "only {} processes: is up running?", pids.len());
    let mut memory = Memory::new();
    for pid in pids {
        // One may end while we look.
        let (Some(kib), Ok(name)) = (proportional(pid), std::fs::read_to_string(format!("/proc/{pid}/comm"))) else { continue };
        #[allow(clippy::cast_precision_loss, reason = "kilobytes of one machine")]
        let megabytes = kib as f64 / 1024.0;
        *memory.entry(name.trim().to_owned()).or_default() += megabytes;
    }
    Ok(memory)
}

fn proportional(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
}

async fn register(up: &Up, from: u32, to: u32) -> Result<()> {
    let mut catalog = PgConnection::connect(&up.ready.catalog_dsn).await?;
    let main = up.ready.cells.iter().find(|cell| cell.name == "main").context("no cell main")?;
    let sql = format!(
        "INSERT INTO catalog.tenant (id, slug, name, plan, state)
             SELECT gen_random_uuid(), 'idle-' || n, 'Idle ' || n, 'bronze', 'provisioning' FROM generate_series({from}, {to}) n;
         INSERT INTO catalog.placement (tenant, cell, database, schema, isolation, epoch)
             SELECT id, 'main', 'insula_pool', 'app', 'row', 1 FROM catalog.tenant WHERE state = 'provisioning' AND slug LIKE 'idle-%';
         UPDATE catalog.tenant SET state = 'active' WHERE state = 'provisioning' AND slug LIKE 'idle-%'"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut catalog).await?;
    let numbers: Vec<i64> =
        sqlx::query_scalar("SELECT no FROM catalog.tenant WHERE slug LIKE 'idle-%'").fetch_all(&mut catalog).await?;
    let mut pool = PgConnection::connect(&main.owner_dsn).await?;
    sqlx::query("INSERT INTO insula.tenant (no, epoch) SELECT unnest($1::bigint[]), 1 ON CONFLICT DO NOTHING")
        .bind(&numbers)
        .execute(&mut pool)
        .await?;
    Ok(())
}
