//! Postgres goes in mid-lease, for longer than a lease, and comes back: nothing overlaps, and everything is done.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use insula_jobs::{Enqueue, Job, JobContext, JobError, JobId, Jobs, KindRules, WorkerConfig, send_all};
use insula_testkit::TestServer;
use serde::{Deserialize, Serialize};

use crate::house::{House, QUICK};
use crate::kills::{OVERLAPS, Slow};

/// Jobs that are at work in this process, and how many were begun while they were.
static AT_WORK: Mutex<(Option<HashSet<JobId>>, u32)> = Mutex::new((None, 0));

fn at_work() -> MutexGuard<'static, (Option<HashSet<JobId>>, u32)> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn how_many() -> usize {
    at_work().0.get_or_insert_default().len()
}

/// A [`Slow`] job that tells whether it is at work twice, also where the database cannot see it.
#[derive(Serialize, Deserialize)]
struct Watched(u64);

struct Present(JobId);

impl Present {
    fn new(id: JobId) -> Self {
        let mut at_work = at_work();
        if !at_work.0.get_or_insert_default().insert(id) {
            at_work.1 += 1;
        }
        Self(id)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        at_work().0.get_or_insert_default().remove(&self.0);
    }
}

impl Job for Watched {
    const KIND: &'static str = "watched";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { attempts: 100, backoff: QUICK, ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        let _present = Present::new(context.id());
        Slow(self.0).run(context).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_gone_for_longer_than_a_lease_loses_no_job_and_runs_none_twice_at_once() {
    let server: &'static TestServer = Box::leak(Box::new(insula_testkit::durable_server().await));
    let house = House::on(server, 5).await;
    let jobs: Vec<Watched> = (0..40).map(|n| Watched(100 + n % 9 * 20)).collect();
    for no in 1..=5 {
        send_all(&house.data, &house.tenant(no), &jobs, &Enqueue::default()).await.expect("sent");
    }
    let kinds = Jobs::new().with::<Watched>();
    let config = || WorkerConfig { concurrency: 8, ..house.config() };
    let workers = [house.worker_with(kinds.clone(), config()), house.worker_with(kinds, config())];
    house.until("some work", "SELECT count(*) >= 20 FROM app.effect").await;
    let before = house.count("SELECT max(no) FROM insula.worker").await;
    server.kill().await;
    let gone = Instant::now();
    // Nobody can know any more that nobody else has its jobs.
    while how_many() > 0 {
        assert!(gone.elapsed() < Duration::from_secs(20), "{} jobs go on", how_many());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while gone.elapsed() < house.config().lease * 2 {
        assert_eq!(how_many(), 0, "a job runs without a lease");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _again = server.start_again().await;
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM app.effect").await, 200, "each job's is there, and once");
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end").await, 0, "none is dead");
    assert!(house.count("SELECT count(*) FROM app.done WHERE what = 'begun'").await > 200, "some were at work when it went");
    assert_eq!(house.count(OVERLAPS).await, 0);
    assert_eq!(at_work().1, 0, "none was at work twice at once");
    let given_up = format!("SELECT count(*) = 2 AND min(no) > {before} FROM insula.worker");
    house.until("the old leases to be given up", &given_up).await;
    for worker in workers {
        worker.stop().await;
    }
}
