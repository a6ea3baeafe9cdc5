//! A million tenants known by a follower over HTTP, a hundred thousand of them used: how long it takes, what it costs, what lies on disk, and a
//! start from that without the control plane.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::runtime::Runtime;

use super::edge::{Ask, Edge, Follower};
use crate::{Outcome, Row, Target};

/// The row.
pub(crate) const ROW: Row = Row {
    name: "edge-memory",
    about: "1,000,000 tenants in a follower over HTTP: load, memory, disk, start without control plane",
    run,
};

const TENANTS: u32 = 1_000_000;
const ACTIVE: u32 = 100_000;

fn run() -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("snapshot");
    let edge = runtime.block_on(async {
        let edge = Edge::start().await?;
        edge.tenants(i64::from(TENANTS)).await?;
        anyhow::Ok(edge)
    })?;
    let mut first = Follower::start(&edge, Some(disk.clone()))?;
    let loaded = seconds(first.ask(&Ask::Ready)?);
    let began = Instant::now();
    runtime.block_on(async {
        while !disk.exists() {
            ensure!(began.elapsed() < Duration::from_secs(120), "the snapshot is not written");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })?;
    let written = began.elapsed().as_secs_f64();
    let memory = first.ask(&Ask::Memory(ACTIVE))?;
    let size = std::fs::metadata(&disk)?.len();
    runtime.block_on(async { edge.stop() });
    drop(first);
    let mut again = Follower::start(&edge, Some(disk))?;
    let restarted = seconds(again.ask(&Ask::Ready)?);
    let memory_again = again.ask(&Ask::Memory(ACTIVE))?;
    let detail = format!(
        "proportional set size of a process that only follows, {ACTIVE} tenants read; started from disk: {:.0} MB",
        mb(memory_again)
    );
    Ok(vec![
        Outcome::figure("memory, 1,000,000 tenants known", mb(memory), "MB", Target::AtMost(600.0), detail),
        Outcome::figure(
            "load over HTTP, start to ready",
            loaded,
            "s",
            Target::None,
            "control plane, Postgres and follower on one machine",
        ),
        Outcome::figure("snapshot on disk", mb(size), "MB", Target::None, format!("there {written:.1} s after the load")),
        Outcome::figure("start from disk, control plane away", restarted, "s", Target::None, "killed before; start to ready"),
    ])
}

fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "megabytes of one machine")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
