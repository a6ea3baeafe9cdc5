//! Our side: a gateway in a process of its own, with a catalog in memory.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use insula_catalog::{Catalog, FakeSource, Options, fake};
use insula_core::keys::Secret;
use insula_core::token::{ContextKey, ContextKeys};
use insula_gateway::{Config, Listeners};
use insula_telemetry::senses::Settings;
use insula_telemetry::{Readiness, Senses, Shutdown, admin};

use super::process::Pinned;
use super::{TENANTS, free, slug};

/// The argument that makes this program the gateway of the row.
pub const CHILD: &str = "--gateway";

/// Starts this program as the gateway.
pub(super) fn start(workers: usize, cpus: &str, upstream: SocketAddr) -> Result<Pinned> {
    let addr = free()?;
    let mut command = Command::new("taskset");
    command.args(["-c", cpus]).arg(std::env::current_exe()?);
    command.args([CHILD, &addr.to_string(), &upstream.to_string(), &workers.to_string()]);
    Pinned::start(command, addr)
}

/// Is the gateway, until it is killed.
///
/// # Errors
/// When it cannot start.
pub fn serve(words: &[&str]) -> Result<()> {
    let [addr, upstream, workers] = words else { anyhow::bail!("{CHILD} ADDR UPSTREAM WORKERS") };
    let keys = tempfile::NamedTempFile::new()?;
    let key = ContextKey::new(Secret::random()?)?;
    std::fs::write(keys.path(), ContextKeys::new([(0, key)]).context("a key")?.to_json())?;
    let mut config = Config::default();
    config.listen.http = vec![addr.parse()?];
    config.listen.workers = workers.parse()?;
    config.identity.signing_keys = Some(keys.path().to_owned());
    let source = catalog(upstream)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let catalog = Catalog::start(source, Options::default());
        catalog.ready().await;
        let listeners = Listeners::bind(&config.listen)?;
        let shutdown = Shutdown::on_signals(Duration::from_secs(1))?;
        // As in production: its admin port counts and sums up what requests were.
        let (readiness, senses) = (Readiness::new(), Senses::start(Settings::default())?);
        let _admin = admin::serve_with("gateway", free()?, readiness.clone(), Some(senses.clone()))?;
        insula_gateway::serve(config, catalog, listeners, shutdown, readiness, senses).await?;
        Ok(())
    })
}

/// Tenants with limits above the load: what is measured is deciding, not refusing.
fn catalog(upstream: &str) -> Result<FakeSource> {
    let source = FakeSource::new();
    let mut plan = fake::plan("bronze")?;
    plan.limits.requests_per_second = 1_000_000;
    plan.limits.request_burst = 1_000_000;
    plan.limits.max_concurrent_requests = 10_000;
    let mut cell = fake::cell("main", "127.0.0.1", 1)?;
    cell.app_url = Some(format!("http://{upstream}").into());
    let tenants: Vec<_> =
        (1_i64..).zip(0..TENANTS).map(|(no, n)| fake::tenant(&slug(n), no, "bronze", "main")).collect::<Result<_, _>>()?;
    let database = fake::database("main", "insula_pool", 1)?;
    source.change(|content| {
        content.put_plan(plan);
        content.put_cell(cell);
        content.put_database(database);
        tenants.into_iter().for_each(|tenant| content.put_tenant(tenant));
    });
    Ok(source)
}
