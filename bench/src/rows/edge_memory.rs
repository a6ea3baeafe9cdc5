//! A million tenants known over HTTP, a hundred thousand of them used: what that costs a gateway that has served them; and how long a follower
//! takes to load them, what lies on disk, and a start from that without the control plane.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use tokio::runtime::Runtime;

use super::asker::{Asker, request};
use super::crowd;
use super::door::Door;
use super::edge::{Ask, Edge, Follower};
use crate::{Outcome, Row, Target};

/// The row.
pub(crate) const ROW: Row = Row {
    name: "edge-memory",
    about: "1,000,000 tenants known over HTTP: memory of a gateway; load, disk, start without control plane",
    run,
};

const TENANTS: u32 = 1_000_000;
const ACTIVE: u32 = 100_000;
/// Who ask the gateway, each for their share of the tenants.
const CLIENTS: u32 = 8;

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
    let gateway = gateway(&runtime, &edge)?;
    runtime.block_on(async { edge.stop() });
    drop(first);
    let mut again = Follower::start(&edge, Some(disk))?;
    let restarted = seconds(again.ask(&Ask::Ready)?);
    let memory_again = again.ask(&Ask::Memory(ACTIVE))?;
    let detail = format!("proportional set size, {ACTIVE} tenants read; started from disk: {:.0} MB", mb(memory_again));
    Ok(vec![
        gateway,
        Outcome::figure(
            "memory of a process that only follows, 1,000,000 tenants known",
            mb(memory),
            "MB",
            Target::AtMost(600.0),
            detail,
        ),
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

/// A gateway that has served a request of each active tenant.
fn gateway(runtime: &Runtime, edge: &Edge) -> Result<Outcome> {
    let app = runtime.block_on(crowd::app(1_000, Duration::ZERO))?;
    let door = Door::start(&edge.url, &edge.key, app, 0)?;
    let (before, _) = door.memory()?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn({
                    let door = &door;
                    move || serve(door, client)
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    let took = began.elapsed().as_secs_f64();
    let (memory, resident) = door.memory()?;
    let detail = format!(
        "proportional set size of a gateway's process, a request of each of {ACTIVE} tenants served in {took:.1} s; {:.0} MB before the first one; \
         resident {:.0} MB",
        mb(before),
        mb(resident)
    );
    Ok(Outcome::figure(
        "memory of a gateway, 1,000,000 tenants known, 100,000 active",
        mb(memory),
        "MB",
        Target::AtMost(600.0),
        detail,
    ))
}

/// A client's share of the tenants, one after the other.
fn serve(door: &Door, client: u32) -> Result<()> {
    let mut asker = Asker::new(door)?;
    for n in (1..=ACTIVE).filter(|n| n % CLIENTS == client) {
        let answer = asker.ask(&request(&format!("t-{n}"), None))?;
        ensure!(answer.status == 200, "tenant {n}: {answer:?}");
    }
    Ok(())
}

fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "megabytes of one machine")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
