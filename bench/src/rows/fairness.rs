//! Tenants that all want more than a cell has, through the gateway: who gets how much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use insula_gateway::Config;
use tokio::runtime::Runtime;

use super::crowd::{Client, Edge, app, plan};
use crate::{Outcome, Row, Target};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "fairness", about: "50 equal tenants, and weights 1:2:4, saturating a cell for 30 s through the gateway", run };

const SPAN: Duration = Duration::from_secs(30);
/// Requests that the application works on at once, and for how long.
const PLACES: usize = 16;
const TIME: Duration = Duration::from_millis(8);

fn run() -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    let equal: Vec<(String, String)> = (0..50).map(|n| (format!("tenant-{n}"), "bronze".to_owned())).collect();
    let (served, bad) = runtime.block_on(served(&equal, &[("bronze", 1)], 4))?;
    let (least, most) = (served.iter().min().copied().unwrap_or(0), served.iter().max().copied().unwrap_or(0));
    let equal = Outcome::ratio(
        "50 equal tenants: least served / most served",
        least as f64 / most.max(1) as f64,
        Target::AtLeast(0.99),
        format!("{least} and {most} requests in {} s; {bad} refused", SPAN.as_secs()),
    );
    let plans = [("bronze", 1), ("silver", 2), ("gold", 4)];
    let weighed: Vec<(String, String)> = (0..21).map(|n| (format!("tenant-{n}"), plans[n % 3].0.to_owned())).collect();
    let (served, bad) = runtime.block_on(self::served(&weighed, &plans, 12))?;
    let sum = |class: usize| served.iter().skip(class).step_by(3).sum::<u64>() as f64;
    let off = [(1, 2.0), (2, 4.0)].map(|(class, weight)| (sum(class) / sum(0).max(1.0) / weight - 1.0).abs());
    let worst = off.into_iter().fold(0.0, f64::max);
    let weights = Outcome::ratio(
        "weights 1:2:4: how far off",
        worst,
        Target::AtMost(0.02),
        format!("{} : {} : {} requests in {} s; {bad} refused", sum(0), sum(1), sum(2), SPAN.as_secs()),
    );
    Ok(vec![equal, weights])
}

/// Requests served to each tenant in the span, and how many were refused.
async fn served(tenants: &[(String, String)], plans: &[(&str, u32)], connections: usize) -> Result<(Vec<u64>, u64)> {
    let app = app(PLACES, TIME).await?;
    let plans = plans.iter().map(|(name, weight)| plan(name, *weight)).collect::<Result<_>>()?;
    let mut config = Config::default();
    // Nobody is to be refused for waiting: the line is what is measured.
    (config.admission.queue, config.admission.queue_per_tenant, config.admission.max_wait_ms) = (10_000, 1_000, 30_000);
    (config.admission.limit.initial, config.admission.limit.min, config.admission.limit.max) = (16, 8, 64);
    let edge = Edge::start(config, app, plans, tenants).await?;
    let (stop, bad) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let counts: Vec<Arc<AtomicU64>> = tenants.iter().map(|_| Arc::default()).collect();
    for ((slug, _), count) in tenants.iter().zip(&counts) {
        Client::new(&edge, slug).saturate(connections, count, &bad, &stop);
    }
    let now = || -> Vec<u64> { counts.iter().map(|count| count.load(Ordering::Relaxed)).collect() };
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = now();
    tokio::time::sleep(SPAN).await;
    let after = now();
    stop.store(true, Ordering::Relaxed);
    edge.stop();
    Ok((after.iter().zip(before).map(|(after, before)| after - before).collect(), bad.load(Ordering::Relaxed)))
}
