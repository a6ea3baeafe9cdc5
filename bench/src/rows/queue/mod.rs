//! The queue of jobs against graphile-worker (npm) on the same durable Postgres; choosing with a backlog; starvation; latency.
//!
//! The peer is started with node from the folder that `INSULA_BENCH_QUEUE` names: `bench/peers` after `npm install` there.

mod ground;
mod peer;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use insula_jobs::{Enqueue, Jobs, send, send_all};

use crate::rounds::{Pair, Samples};
use crate::row::{Outcome, Row, Target};
use ground::{COUNT, Ground, Nothing, Stamp, WAITED};
use peer::Peer;

/// The rows of the speed table about jobs.
pub(crate) const ROW: Row =
    Row { name: "queue", about: "jobs: consuming, enqueueing, choosing, starvation, latency, against graphile-worker", run };

const JOBS: i64 = 40_000;
const ROUNDS: usize = 3;
const TENANTS: i64 = 10_000;

fn run() -> Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<Vec<Outcome>> {
    let ground = Ground::new(TENANTS).await?;
    let peer = Peer::new(&ground).await?;
    let mut outcomes = Vec::new();
    let (mut crowd, mut one, mut batch, mut single) = (Pair::default(), Pair::default(), Pair::default(), Pair::default());
    for round in 0..=ROUNDS {
        let push = |pair: &mut Pair, ours: f64, theirs: Option<f64>| {
            // The first round warms both up.
            if round > 0 {
                pair.ours.0.push(ours);
                pair.peer.0.extend(theirs);
            }
        };
        let theirs = peer.insert_one(2_000)?;
        push(&mut single, enqueue_one(&ground, 2_000).await?, theirs);
        let theirs = peer.insert_batch(JOBS)?;
        push(&mut batch, enqueue_batch(&ground, JOBS).await?, theirs);
        let theirs = peer.consume(JOBS, 20)?;
        ground.fill(1, JOBS).await?;
        push(&mut one, consume(&ground, JOBS).await?, theirs);
        ground.fill(TENANTS, JOBS).await?;
        push(&mut crowd, consume(&ground, JOBS).await?, theirs);
    }
    for (what, pair, target) in [
        ("no-op jobs of 10,000 tenants consumed", &crowd, 0.8),
        ("no-op jobs of one tenant consumed", &one, 1.0),
        ("enqueued 1,000 at a time", &batch, 1.0),
        ("enqueued one by one, each in its transaction", &single, 1.0),
    ] {
        if pair.peer.0.is_empty() {
            let detail = "graphile-worker is not there: npm install in bench/peers, and INSULA_BENCH_QUEUE";
            outcomes.push(Outcome::figure(what, pair.ours.median(), "jobs/s", Target::None, detail));
        } else {
            outcomes.push(Outcome::ratio(what, pair.ratio(), Target::AtLeast(target), pair.detail("jobs/s")));
        }
    }
    outcomes.push(choosing(&ground).await?);
    outcomes.push(starvation(&ground).await?);
    outcomes.extend(latency(&ground).await?);
    Ok(outcomes)
}

/// Jobs per second of one worker process at concurrency 20, from its start to the last job.
async fn consume(ground: &Ground, jobs: i64) -> Result<f64> {
    COUNT.store(0, Ordering::Release);
    let start = Instant::now();
    let worker = ground.worker(Jobs::new().with::<Nothing>())?;
    while COUNT.load(Ordering::Acquire) < jobs {
        tokio::time::sleep(Duration::from_millis(1)).await;
        ensure!(start.elapsed() < Duration::from_secs(120), "{} of {jobs} jobs in two minutes", COUNT.load(Ordering::Acquire));
    }
    let took = start.elapsed();
    worker.stop().await;
    ensure!(ground.count("SELECT count(*) FROM insula.job").await? == 0, "jobs are left");
    Ok(jobs as f64 / took.as_secs_f64())
}

async fn enqueue_batch(ground: &Ground, jobs: i64) -> Result<f64> {
    let tenant = ground.tenant(1)?;
    let start = Instant::now();
    for _ in 0..jobs / 1_000 {
        let batch: Vec<Nothing> = (0..1_000).map(Nothing::new).collect();
        send_all(&ground.data, &tenant, &batch, &Enqueue::default()).await?;
    }
    let took = start.elapsed();
    ground.clear().await?;
    Ok(jobs as f64 / took.as_secs_f64())
}

/// Ten clients, as the peer's script has.
async fn enqueue_one(ground: &Ground, jobs: i64) -> Result<f64> {
    let start = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..10 {
        let (data, tenant) = (ground.data.clone(), ground.tenant(1 + client)?);
        clients.spawn(async move {
            for n in 0..jobs / 10 {
                send(&data, &tenant, &Nothing::new(n), &Enqueue::default()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    let took = start.elapsed();
    ground.clear().await?;
    Ok(jobs as f64 / took.as_secs_f64())
}

/// What taking costs for each job with 10,000,000 waiting in 10,000 lanes against 1,000 in 10: batches of 100, taken and ended.
async fn choosing(ground: &Ground) -> Result<Outcome> {
    let backlog: i64 = std::env::var("INSULA_BENCH_BACKLOG").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000_000);
    let mut sides = [Samples::default(), Samples::default()];
    for (side, (lanes, jobs)) in [(10, 1_000), (TENANTS, backlog)].into_iter().enumerate() {
        for _ in 0..if side == 0 { 10 } else { 1 } {
            ground.fill(lanes, jobs).await?;
            sides[side].0.extend(ground.take(8, 100).await?);
            ground.clear().await?;
        }
    }
    let [small, large] = sides;
    let detail = format!("{:.1} us a job against {:.1}; {backlog} jobs", large.median(), small.median());
    Ok(Outcome::ratio(
        "taking a job, 10,000,000 in 10,000 lanes against 1,000 in 10",
        large.median() / small.median(),
        Target::AtMost(1.3),
        detail,
    ))
}

/// Time until ten jobs of B are done behind 1,000,000 of A, against B alone.
async fn starvation(ground: &Ground) -> Result<Outcome> {
    let (mut alone, mut behind) = (Samples::default(), Samples::default());
    for n in 0..9 {
        let busy = n % 2 == 1;
        if busy {
            ground.fill(1, 1_000_000).await?;
        }
        let worker = ground.worker(Jobs::new().with::<Nothing>().with::<Stamp>())?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let start = Instant::now();
        let ten: Vec<Stamp> = (0..10).map(|_| Stamp::now()).collect();
        WAITED.lock().await.clear();
        send_all(&ground.data, &ground.tenant(2)?, &ten, &Enqueue::default()).await?;
        while WAITED.lock().await.len() < 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ensure!(start.elapsed() < Duration::from_secs(60), "B starves");
        }
        let side = if busy { &mut behind } else { &mut alone };
        side.0.push(start.elapsed().as_secs_f64() * 1_000.0);
        worker.stop().await;
        ground.clear().await?;
    }
    let detail = format!("{:.1} ms against {:.1} ms alone", behind.median(), alone.median());
    Ok(Outcome::ratio(
        "B's ten jobs behind A's million, against B alone",
        behind.median() / alone.median(),
        Target::AtMost(1.5),
        detail,
    ))
}

/// From the call that enqueues to the job's first line, on an idle system.
async fn latency(ground: &Ground) -> Result<[Outcome; 2]> {
    let worker = ground.worker(Jobs::new().with::<Stamp>())?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    WAITED.lock().await.clear();
    for n in 1..=300 {
        send(&ground.data, &ground.tenant(1 + n % 50)?, &Stamp::now(), &Enqueue::default()).await?;
        while WAITED.lock().await.len() < usize::try_from(n)? {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.stop().await;
    let waited = Samples(WAITED.lock().await.clone());
    Ok([
        Outcome::figure(
            "enqueue to start, idle, p50",
            waited.median(),
            "ms",
            Target::AtMost(5.0),
            "300 jobs, from before BEGIN to the job's first line",
        ),
        Outcome::figure("enqueue to start, idle, p99", waited.quantile(0.99), "ms", Target::AtMost(20.0), ""),
    ])
}
