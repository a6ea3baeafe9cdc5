//! Workers that die: every job is done, its effect is there once, and never are two at it at once.

use std::time::Duration;

use insula_jobs::{Enqueue, Job, JobContext, JobError, Jobs, KindRules, WorkerConfig, send_all};
use serde::{Deserialize, Serialize};

use crate::house::{House, Note, QUICK};

/// Notes that it begins and ends, so that two at once would overlap. Its effect goes by its id, as whoever writes a job is told.
#[derive(Serialize, Deserialize)]
pub(crate) struct Slow(pub(crate) u64);

/// Two at once: an attempt that wrote anything after a later one had begun.
pub(crate) const OVERLAPS: &str =
    "SELECT count(*) FROM app.done a JOIN app.done b ON a.id = b.id AND b.what = 'begun' AND b.attempt > a.attempt % 1000
    WHERE a.at > b.at";

impl Job for Slow {
    const KIND: &'static str = "slow";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { attempts: 100, backoff: QUICK, ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        let write = async |attempt: i32, what: &str| {
            let mut tx = context.begin().await?;
            let sql = "INSERT INTO done (id, attempt, what) VALUES ($1, $2, $3)";
            sqlx::query(sql).bind(context.id()).bind(attempt).bind(what).execute(&mut tx).await?;
            if what == "ended" {
                let sql = "INSERT INTO effect (id, attempt) VALUES ($1, $2) ON CONFLICT DO NOTHING";
                sqlx::query(sql).bind(context.id()).bind(context.attempt()).execute(&mut tx).await?;
            }
            tx.commit().await?;
            Ok::<_, JobError>(())
        };
        write(context.attempt(), "begun").await?;
        tokio::time::sleep(Duration::from_millis(self.0)).await;
        write(1_000 + context.attempt(), "ended").await?;
        // Whoever is killed now has had its effect, and runs again.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}

/// Five generations of workers, each killed in mid-work without a word (dropped: its thread and connections go, its leases stay), some
/// overlapping; the last finishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_are_killed_throughout_and_every_job_is_done() {
    let house = House::new(20).await;
    let jobs: Vec<Slow> = (0..15).map(|n| Slow(20 + n % 7)).collect();
    for no in 1..=20 {
        send_all(&house.data, &house.tenant(no), &jobs, &Enqueue::default()).await.expect("sent");
    }
    let kinds = Jobs::new().with::<Slow>();
    for generation in 1..=5_i64 {
        let doomed = (house.worker(kinds.clone()), house.worker(kinds.clone()));
        let sql = format!("SELECT count(*) >= {} FROM app.done WHERE what = 'ended'", generation * 30);
        house.until("some work", &sql).await;
        // No farewell to the queue: the runtime's tasks are aborted where they are.
        doomed.0.kill();
        doomed.1.kill();
    }
    let last = house.worker(kinds);
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM app.effect").await, 300, "each job's is there, and once");
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end").await, 0, "none is dead");
    let ended = house.count("SELECT count(*) FROM app.done WHERE what = 'ended'").await;
    assert!(ended > 300, "some were killed after it, and came to it again: {ended}");
    let again = house.count("SELECT count(*) FROM app.done WHERE what = 'begun'").await;
    assert!(again > 300, "some were killed in mid-work: {again}");
    assert_eq!(house.count(OVERLAPS).await, 0);
    last.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_waits_for_what_runs_and_gives_back_the_rest() {
    let house = House::new(2).await;
    let jobs: Vec<Slow> = (0..50).map(|_| Slow(150)).collect();
    send_all(&house.data, &house.tenant(1), &jobs, &Enqueue::default()).await.expect("sent");
    let worker = house.worker(Jobs::new().with::<Slow>());
    house.until("some work", "SELECT count(*) > 0 FROM app.done").await;
    worker.stop().await;
    let begun = house.count("SELECT count(*) FROM app.done WHERE what = 'begun'").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE what = 'ended'").await, begun, "what began has ended");
    assert_eq!(house.count("SELECT count(*) FROM insula.job WHERE state = 'w'").await, 50 - begun);
    assert_eq!(house.count("SELECT count(*) FROM insula.worker").await, 0);
    let next = house.worker(Jobs::new().with::<Slow>());
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE what = 'begun'").await, 50, "each began once");
    next.stop().await;
}

/// The server ends all of the worker's sessions, again and again: answers are lost in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_lose_no_job() {
    let house = House::new(10).await;
    let jobs: Vec<Note> = (0..100).map(|n| Note::new(&n.to_string(), 1)).collect();
    let worker = house.worker(Jobs::new().with::<Note>());
    let mut admin = house.admin().await;
    for no in 1..=10 {
        send_all(&house.data, &house.tenant(no), &jobs, &Enqueue::default()).await.expect("sent");
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'insula_worker' AND datname = current_database()";
        sqlx::query(cut).execute(&mut admin).await.expect("cut");
        house.until("some work", &format!("SELECT count(*) > {} FROM app.done", no * 20)).await;
    }
    house.empty().await;
    assert_eq!(house.count("SELECT count(DISTINCT id) FROM app.done").await, 1_000);
    worker.stop().await;
}

/// A database that one tenant has for itself is only visited, for less time than a lease lasts: who died there is found out all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_that_dies_on_a_visit_is_found_out() {
    let house = House::new(1).await;
    // Beside it, the cell has the pool that many share.
    let pool = insula_catalog::fake::database(house.server.cell().as_str(), insula_core::placement::POOL_DATABASE, 1);
    house.source.change(|content| content.put_database(pool.expect("names")));
    house.catalog.refresh().await.expect("a refresh");
    let config = WorkerConfig { databases: None, visit: Duration::from_millis(100), ..house.config() };
    let doomed = house.worker_with(Jobs::new().with::<Slow>(), config.clone());
    send_all(&house.data, &house.tenant(1), &[Slow(3_000)], &Enqueue::default()).await.expect("sent");
    house.until("it to begin", "SELECT count(*) = 1 FROM app.done WHERE what = 'begun'").await;
    doomed.kill();
    let last = house.worker_with(Jobs::new().with::<Slow>(), config);
    house.until("it to end", "SELECT count(*) = 1 FROM app.done WHERE what = 'ended'").await;
    last.stop().await;
}
