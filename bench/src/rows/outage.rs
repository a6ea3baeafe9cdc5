//! The control plane killed for a minute under load: what fails at a gateway that follows it. Nobody starts it again.
//!
//! The load comes at a fixed rate from clients of known tenants, half of which prove themselves by API keys: what a gateway could ask the control plane
//! about, it would have to ask about here. `INSULA_BENCH_SECONDS` shortens the minute, for whoever works on the row.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Method, Uri};
use insula_api::identity::CreateTenantKey;
use insula_load::{Arrivals, Plan, Rate, Report, Target as Goal, Traffic};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::door::Door;
use super::house::House;
use crate::{Outcome, Row, Target};

/// The row.
pub(crate) const ROW: Row = Row { name: "outage", about: "the control plane killed for 60 s under load: failed requests", run };

/// Beside those that ask.
const KNOWN: i64 = 10_000;
const TENANTS: usize = 20;
/// Requests a second of each.
const RATE: f64 = 50.0;
/// Under load before the control plane goes.
const BEFORE: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);

fn run() -> Result<Vec<Outcome>> {
    let seconds = std::env::var("INSULA_BENCH_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let outage = Duration::from_secs(seconds);
    let runtime = Runtime::new()?;
    let mut house = runtime.block_on(House::start(KNOWN))?;
    let clients = runtime.block_on(clients(&house))?;
    let door = house.door(2)?;
    let (report, before) = runtime.block_on(loaded(&mut house, &door, clients, outage))?;
    ensure!(house.is_gone(), "somebody has started the control plane again");
    // It did follow this control plane, and has noticed. It says how old its knowledge is when it has last tried, which it does ever more rarely.
    let age = door.age()?;
    ensure!(age > outage.as_secs_f64() / 2.0, "the gateway has heard from a control plane {age:.0} s ago");
    let all = report.total;
    let failed = all.errors;
    ensure!(all.requests > 0, "nothing was asked");
    let what = format!("control plane killed for {seconds} s under load: failed requests");
    let failures = if failed == 0 {
        String::new()
    } else {
        format!("; by status {:?}, without an answer {:?}, refused {}", all.statuses, all.failures, door.refusals()?)
    };
    let detail = format!(
        "{} requests of {TENANTS} tenants, half of them with API keys, {before} of them before it; {:.0} requests/s; p99 {:.1} ms, the longest {:.1} ms; \
         the gateway had not heard of it for {age:.0} s when it last said so{failures}",
        all.requests,
        all.rps,
        all.latency.p99_us as f64 / 1e3,
        all.latency.max_us as f64 / 1e3,
    );
    Ok(vec![Outcome::figure(what, failed as f64, "requests", Target::AtMost(0.0), detail)])
}

/// What each tenant asks.
async fn clients(house: &House) -> Result<Vec<Traffic>> {
    let mut clients = Vec::new();
    for n in 0..TENANTS {
        let slug = format!("bench-{n}");
        house.tenant(&slug, &[]).await?;
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::try_from(format!("{slug}.localhost"))?)]);
        if n % 2 == 0 {
            let key = CreateTenantKey { name: "bench".into(), scopes: vec![], expires_at: None };
            let secret = house.client.create_tenant_key(&slug, &key).await?.secret.context("a key is told once")?;
            headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {secret}"))?);
        }
        let target = Goal { method: Method::GET, uri: Uri::from_static("/"), headers, body: Default::default() };
        clients.push(Traffic { name: slug, rate: Rate::PerSecond(RATE), target, connections: 16 });
    }
    Ok(clients)
}

/// One run: a while with the control plane, then without. What came of it, and how many had ended when it went.
async fn loaded(house: &mut House, door: &Door, traffic: Vec<Traffic>, outage: Duration) -> Result<(Report, u64)> {
    let plan = Plan {
        addr: door.addr,
        traffic,
        arrivals: Arrivals::Poisson,
        warmup: Duration::from_secs(2),
        length: BEFORE + outage,
        timeout: TIMEOUT,
        threads: 2,
    };
    let ended = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&ended);
    let (warmup, stop) = (plan.warmup, CancellationToken::new());
    let load = tokio::spawn(async move {
        let watch = |progress: &insula_load::Progress| {
            seen.store(progress.tenants.iter().map(|tenant| tenant.requests).sum(), Ordering::Relaxed);
        };
        insula_load::run(plan, stop, watch).await
    });
    tokio::time::sleep(warmup + BEFORE).await;
    ensure!(!load.is_finished(), "the load has ended: {:?}", load.await?.map(|report| report.total.requests));
    house.kill()?;
    let before = ended.load(Ordering::Relaxed);
    Ok((load.await??, before))
}
