//! The queue of jobs against graphile-worker and pg-boss (npm) on the same durable Postgres; choosing with a backlog; starvation; latency.
//!
//! The peers are started with node from the folder that `INSULA_BENCH_QUEUE` names: `bench/peers` after `npm install` there.

mod ground;
mod peer;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use insula_core::TenantContext;
use insula_jobs::{Enqueue, Jobs, send, send_all};

use crate::rounds::{Pair, Samples};
use crate::row::{Outcome, Row, Target};
use ground::{Brief, COUNT, Ground, Nothing, SERVED, Stamp, WAITED, WEIGHTS};
use peer::Peer;

/// The rows of the speed table about jobs.
pub(crate) const ROW: Row = Row {
    name: "queue",
    about: "jobs: consuming, enqueueing, choosing, starvation, weights, latency, against graphile-worker and pg-boss",
    run,
};

const JOBS: i64 = 40_000;
const ROUNDS: usize = 3;
const TENANTS: i64 = 10_000;

fn run() -> Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<Vec<Outcome>> {
    let ground = Ground::new(TENANTS).await?;
    // Parts of the row, for whoever works on one of them.
    let parts = std::env::var("INSULA_BENCH_PARTS").ok();
    let wanted = |part: &str| parts.as_ref().is_none_or(|parts| parts.split(',').any(|named| named == part));
    let mut outcomes = Vec::new();
    if wanted("peer") {
        outcomes.extend(against_peers(&ground).await?);
    }
    if wanted("choosing") {
        outcomes.push(choosing(&ground).await?);
    }
    if wanted("starvation") {
        outcomes.push(starvation(&ground).await?);
    }
    if wanted("weights") {
        outcomes.push(weights(&ground).await?);
    }
    if wanted("latency") {
        outcomes.extend(latency(&ground).await?);
        outcomes.extend(latency_alone(&ground).await?);
    }
    Ok(outcomes)
}

/// One measure: ours beside each peer's, in the same rounds.
#[derive(Default)]
struct Race {
    graphile: Pair,
    boss: Pair,
}

impl Race {
    fn note(&mut self, ours: f64, graphile: Option<f64>, boss: Option<f64>) {
        for (pair, theirs) in [(&mut self.graphile, graphile), (&mut self.boss, boss)] {
            pair.ours.0.push(ours);
            pair.peer.0.extend(theirs);
        }
    }
}

async fn against_peers(ground: &Ground) -> Result<Vec<Outcome>> {
    let (graphile, boss) = (Peer::graphile(ground).await?, Peer::boss(ground).await?);
    let (mut crowd, mut one, mut batch, mut single) = (Race::default(), Race::default(), Race::default(), Race::default());
    for round in 0..=ROUNDS {
        let theirs = graphile.insert_one(2_000)?;
        single.note(enqueue_one(ground, 2_000).await?, theirs, boss.insert_one(2_000)?);
        let theirs = graphile.insert_batch(JOBS)?;
        batch.note(enqueue_batch(ground, JOBS).await?, theirs, boss.insert_batch(JOBS)?);
        let theirs = graphile.consume(JOBS, 20)?;
        ground.fill(1, JOBS).await?;
        one.note(consume(ground, JOBS).await?, theirs, boss.consume(JOBS, 20)?);
        ground.fill(TENANTS, JOBS).await?;
        crowd.note(consume(ground, JOBS).await?, theirs, None);
        if round == 0 {
            // It warms all up.
            for race in [&mut crowd, &mut one, &mut batch, &mut single] {
                *race = Race::default();
            }
        }
    }
    let mut outcomes = Vec::new();
    for (what, race, target) in [
        ("no-op jobs of 10,000 tenants consumed", &crowd, 0.8),
        ("no-op jobs of one tenant consumed", &one, 1.0),
        ("enqueued 1,000 at a time", &batch, 1.0),
        ("enqueued one by one, each in its transaction", &single, 1.0),
    ] {
        let pair = &race.graphile;
        if pair.peer.0.is_empty() {
            let detail = "graphile-worker is not there: npm install in bench/peers, and INSULA_BENCH_QUEUE";
            outcomes.push(Outcome::figure(what, pair.ours.median(), "jobs/s", Target::None, detail));
        } else {
            outcomes.push(Outcome::ratio(what, pair.ratio(), Target::AtLeast(target), pair.detail("jobs/s")));
        }
    }
    for (what, race) in [
        ("no-op jobs of one tenant consumed, against pg-boss", &one),
        ("enqueued 1,000 at a time, against pg-boss", &batch),
        ("enqueued one by one, each in its transaction, against pg-boss", &single),
    ] {
        if !race.boss.peer.0.is_empty() {
            outcomes.push(Outcome::ratio(what, race.boss.ratio(), Target::None, race.boss.detail("jobs/s")));
        }
    }
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
    // The first batch puts all lanes where they belong. After two jobs of each lane, the pages of all of them have been written to since the
    // checkpoint: as it is while a backlog is worked off, and not as it is in its first second. With many lanes 100 batches are a job of each, and one in
    // seven of those hundreds looks for what the next ones take: so the median batch of each hundred, and the mean of fourteen of them.
    for (side, (lanes, jobs, rounds, before, batches)) in
        [(10, 1_000, 30, 1, 9), (TENANTS, backlog, 1, 200, 1_400)].into_iter().enumerate()
    {
        for _ in 0..rounds {
            ground.fill(lanes, jobs).await?;
            let times = ground.take(before, batches, 100).await?;
            sides[side].0.extend(times.chunks(100).map(|hundred| Samples(hundred.to_vec()).median()));
            ground.clear().await?;
        }
    }
    let [small, large] = sides.map(|side| side.0.iter().sum::<f64>() / side.0.len() as f64);
    let detail = format!("{large:.1} us a job against {small:.1}; {backlog} jobs");
    Ok(Outcome::ratio("taking a job, 10,000,000 in 10,000 lanes against 1,000 in 10", large / small, Target::AtMost(1.3), detail))
}

/// How often B asks in each round: one time is a few milliseconds, and a look each millisecond.
const ASKED: usize = 9;

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
        let side = if busy { &mut behind } else { &mut alone };
        for _ in 0..ASKED {
            let start = Instant::now();
            let ten: Vec<Stamp> = (0..10).map(|_| Stamp::now()).collect();
            WAITED.lock().await.clear();
            send_all(&ground.data, &ground.tenant(2)?, &ten, &Enqueue::default()).await?;
            while WAITED.lock().await.len() < 10 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                ensure!(start.elapsed() < Duration::from_secs(60), "B starves");
            }
            side.0.push(start.elapsed().as_secs_f64() * 1_000.0);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
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

/// Four tenants of weights 1, 2, 4 and 8, each with more jobs than can be done: how far from its share the one is that is farthest.
async fn weights(ground: &Ground) -> Result<Outcome> {
    let window = Duration::from_secs(std::env::var("INSULA_BENCH_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60));
    let first = TENANTS + 1;
    // At most five thousand jobs in a second, and the heaviest has 8 of 15.
    let each = 5_000 * i64::try_from(window.as_secs() + 5)? * 8 / 15;
    ground.fill_with(first, 4, 4 * each, "brief", &first.to_string()).await?;
    let worker = ground.worker(Jobs::new().with::<Brief>())?;
    let served = || SERVED.each_ref().map(|n| n.load(Ordering::Acquire));
    // Weights are learnt with each tenant's first job.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = served();
    tokio::time::sleep(window).await;
    let after = served();
    worker.stop().await;
    ensure!(after[3] < each, "the heaviest ran out of jobs");
    ground.clear().await?;
    let got: Vec<i64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let all: i64 = got.iter().sum();
    let off = |(got, weight): (&i64, u32)| (*got as f64 * 15.0 / (all as f64 * f64::from(weight)) - 1.0).abs();
    let most = got.iter().zip(WEIGHTS).map(off).fold(0.0, f64::max);
    let detail = format!("{got:?} jobs of 4 ms in {} s", window.as_secs());
    Ok(Outcome::figure("shares of weights 1:2:4:8, farthest from what is due", most, "", Target::AtMost(0.02), detail))
}

/// From the call that enqueues to the job's first line, on an idle system: tenants of the shared database.
async fn latency(ground: &Ground) -> Result<[Outcome; 2]> {
    let worker = ground.worker(Jobs::new().with::<Stamp>())?;
    let tenants: Vec<TenantContext> = (1..=50).map(|no| ground.tenant(no)).collect::<Result<_>>()?;
    let waited = stamps(ground, &tenants, 300, Duration::from_millis(10)).await?;
    worker.stop().await;
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

/// The same for a tenant with a database of its own: at work, and when no worker had been there for a while.
async fn latency_alone(ground: &Ground) -> Result<[Outcome; 3]> {
    let (tenant, worker) = ground.alone(TENANTS + 100, Jobs::new().with::<Stamp>()).await?;
    let tenant = [tenant];
    stamps(ground, &tenant, 3, Duration::from_millis(10)).await?;
    let waited = stamps(ground, &tenant, 300, Duration::from_millis(10)).await?;
    // Longer than a worker stays where there is nothing to do.
    let cold = stamps(ground, &tenant, 8, Duration::from_secs(8)).await?;
    worker.stop().await;
    Ok([
        Outcome::figure(
            "enqueue to start, database of one tenant, p50",
            waited.median(),
            "ms",
            Target::AtMost(5.0),
            "300 jobs of a tenant at work, from before BEGIN to the job's first line",
        ),
        Outcome::figure("enqueue to start, database of one tenant, p99", waited.quantile(0.99), "ms", Target::AtMost(20.0), ""),
        Outcome::figure(
            "the same after eight seconds without a job, when no worker is connected there",
            cold.median(),
            "ms",
            Target::AtMost(20.0),
            format!("8 jobs; the longest took {:.1} ms", cold.quantile(1.0)),
        ),
    ])
}

/// How long jobs waited, in milliseconds, sent one after the other with a pause before each.
async fn stamps(ground: &Ground, tenants: &[TenantContext], jobs: usize, pause: Duration) -> Result<Samples> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    WAITED.lock().await.clear();
    for (n, tenant) in (1..=jobs).zip(tenants.iter().cycle()) {
        tokio::time::sleep(pause).await;
        send(&ground.data, tenant, &Stamp::now(), &Enqueue::default()).await?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while WAITED.lock().await.len() < n {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ensure!(Instant::now() < deadline, "a job did not start");
        }
    }
    Ok(Samples(WAITED.lock().await.clone()))
}
