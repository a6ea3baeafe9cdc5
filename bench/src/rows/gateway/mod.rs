//! The gateway against nginx with `limit_req` on a tenant header: requests per second, CPU per request, added latency.
//!
//! Both are pinned to the same cores and forward to the same nginx that answers a few bytes; wrk loads them in closed loops, a generator of
//! our own in an open one. The gateway does all that it does in production: it resolves the tenant, applies its limits, asks the cell's circuit,
//! signs the context. Needs nginx and wrk, from the system's packages.

mod open_loop;
mod process;
mod server;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use server::{CHILD, serve};

use crate::rounds::Pair;
use crate::row::{Outcome, Row, Target};
use process::{Pinned, Wrk, nginx};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "gateway", about: "the gateway against nginx with limit_req: requests/s, CPU a request, latency", run };

/// Tenants that the load is spread over.
const TENANTS: usize = 100;
/// Of what is in one round, the machine decides a tenth.
const ROUNDS: usize = 11;
const SLICE: Duration = Duration::from_secs(3);
/// The open loop's. Its rounds are short and many: a machine that stands still for a moment spoils the tail of the round that it falls into, and of
/// long ones, it spoils most. Of rounds of half a second, hardly any is without a stall of a millisecond; of these, two in three are, and two
/// nginx beside each other differ least (docs/decisions/0082-what-waits-behind-an-answer.md).
const RATE: u32 = 8_000;
const OPEN_ROUNDS: usize = 301;
const OPEN_SLICE: Duration = Duration::from_millis(100);

/// Which cores do what.
struct Profile {
    name: &'static str,
    proxy: &'static str,
    workers: usize,
    backend: &'static str,
    load: &'static str,
}

const ONE: Profile = Profile { name: "one core", proxy: "0", workers: 1, backend: "1,3", load: "2" };
const TWO: Profile = Profile { name: "two cores", proxy: "0,1", workers: 2, backend: "3", load: "2" };

fn run() -> Result<Vec<Outcome>> {
    let folder = tempfile::tempdir()?;
    let mut outcomes = Vec::new();
    let stand = Stand::new(folder.path(), &ONE)?;
    let mut cpu = Pair::default();
    for (connections, bound) in [(1, 0.95), (64, 0.95), (256, 0.85)] {
        outcomes.push(stand.closed(connections, bound, &mut cpu)?);
    }
    outcomes.push(Outcome::ratio("CPU per request, one core", cpu.ratio(), Target::AtMost(1.15), cpu.detail("µs")));
    outcomes.extend(stand.open()?);
    drop(stand);
    outcomes.push(Stand::new(folder.path(), &TWO)?.closed(64, 0.85, &mut Pair::default())?);
    Ok(outcomes)
}

/// Loads our side alone, in each of the ways in which it is measured.
///
/// # Errors
/// When a program that this takes is missing.
pub fn train() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let stand = Stand::new(folder.path(), &ONE)?;
    for connections in [1, 64, 256] {
        Wrk { script: &stand.script, connections, cpus: ONE.load }.run(stand.ours.addr, SLICE)?;
    }
    open_loop::run(stand.ours.addr, RATE / 4, TENANTS, SLICE, ONE.load).map(drop)
}

/// Both proxies and what they forward to.
struct Stand<'a> {
    profile: &'a Profile,
    _backend: Pinned,
    ours: Pinned,
    peer: Pinned,
    script: std::path::PathBuf,
}

impl<'a> Stand<'a> {
    fn new(folder: &Path, profile: &'a Profile) -> Result<Self> {
        let backend = nginx::backend(folder, if profile.backend.contains(',') { 2 } else { 1 }, profile.backend)?;
        let peer = nginx::proxy(folder, profile.workers, profile.proxy, backend.addr)?;
        let ours = server::start(profile.workers, profile.proxy, backend.addr)?;
        let script = folder.join("tenants.lua");
        std::fs::write(&script, process::script(TENANTS)).context("cannot write the script of wrk")?;
        Ok(Self { profile, _backend: backend, ours, peer, script })
    }

    /// As many requests as come through; CPU per request goes to `cpu`.
    fn closed(&self, connections: usize, bound: f64, cpu: &mut Pair) -> Result<Outcome> {
        let wrk = Wrk { script: &self.script, connections, cpus: self.profile.load };
        let mut rates = Pair::default();
        for round in 0..=ROUNDS {
            let sides: [(&Pinned, bool); 2] = [(&self.ours, true), (&self.peer, false)];
            for turn in 0..2 {
                let (side, is_ours) = sides[(turn + round) % 2];
                let before = side.cpu_seconds();
                let done = wrk.run(side.addr, SLICE)?;
                // The first round warms.
                if round == 0 {
                    continue;
                }
                let (rate, busy) = (done.rate, (side.cpu_seconds() - before) * 1e6 / done.requests);
                let (rate_of, cpu_of) = if is_ours { (&mut rates.ours, &mut cpu.ours) } else { (&mut rates.peer, &mut cpu.peer) };
                rate_of.0.push(rate);
                cpu_of.0.push(busy);
            }
        }
        let what = format!("requests/s, {}, {connections} connections", self.profile.name);
        Ok(Outcome::ratio(what, rates.ratio(), Target::AtLeast(bound), rates.detail("requests/s")))
    }

    /// At a rate below what both can do, from the moment at which each request was due.
    fn open(&self) -> Result<Vec<Outcome>> {
        let (mut p50, mut p99) = (Pair::default(), Pair::default());
        let (mut all, mut peers) = (open_loop::Seen::default(), open_loop::Seen::default());
        for round in 0..=OPEN_ROUNDS {
            let sides: [(&Pinned, bool); 2] = [(&self.ours, true), (&self.peer, false)];
            for turn in 0..2 {
                let (side, is_ours) = sides[(turn + round) % 2];
                let seen = open_loop::run(side.addr, RATE, TENANTS, OPEN_SLICE, self.profile.load)?;
                if round == 0 {
                    continue;
                }
                let (half, tail) = if is_ours { (&mut p50.ours, &mut p99.ours) } else { (&mut p50.peer, &mut p99.peer) };
                half.0.push(seen.quantile(0.5));
                tail.0.push(seen.quantile(0.99));
                if is_ours { &mut all } else { &mut peers }.add(seen);
            }
        }
        let together = format!("of all rounds together {:.1} µs against {:.1} µs", all.quantile(0.99), peers.quantile(0.99));
        Ok(vec![
            Outcome::ratio(format!("latency at {RATE}/s, p50"), p50.ratio(), Target::AtMost(1.5), p50.detail("µs")),
            Outcome::ratio(
                format!("latency at {RATE}/s, p99"),
                p99.ratio(),
                Target::AtMost(1.0),
                format!("{}; {together}", p99.detail("µs")),
            ),
        ])
    }
}

/// A tenant's slug.
fn slug(n: usize) -> String {
    format!("tenant-{n:06}")
}

/// A port that is free now.
fn free() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
