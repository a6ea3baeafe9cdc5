//! Jobs that do harm by what they keep: a thread for ever, transactions, tasks. Other tenants' jobs go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use insula_jobs::{Enqueue, Job, JobContext, JobError, Jobs, KindRules, WorkerConfig, send, send_all};
use serde::{Deserialize, Serialize};

use crate::house::{House, Note, QUICK};

static RELEASED: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Blocks its thread until the test is over.
#[derive(Serialize, Deserialize)]
struct Stuck;

impl Job for Stuck {
    const KIND: &'static str = "stuck";
    type Output = ();
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        let mut released = RELEASED.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*released {
            released = RELEASED.1.wait(released).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_that_blocks_its_thread_for_ever_stays_at_work_and_is_seen_and_others_go_on() {
    let meters = insula_telemetry::meters::install().expect("a recorder");
    let house = House::new(2).await;
    let kinds = Jobs::new().with::<Stuck>().with::<Note>();
    let (one, two) = (house.worker(kinds.clone()), house.worker(kinds));
    send(&house.data, &house.tenant(1), &Stuck, &Enqueue { attempts: Some(3), ..Enqueue::default() }).await.expect("sent");
    house.until("it to block", "SELECT count(*) = 1 FROM insula.job WHERE state = 'r' AND kind = 'stuck'").await;
    let beats = house.count("SELECT sum(beats)::bigint FROM insula.worker").await;
    let notes: Vec<Note> = (0..100).map(|n| Note::new(&n.to_string(), 1)).collect();
    for no in [1, 2] {
        send_all(&house.data, &house.tenant(no), &notes, &Enqueue::default()).await.expect("sent");
    }
    house.until("the others", "SELECT count(*) = 200 FROM app.done").await;
    // A beat is a fourth of a lease: both have gone on for two.
    house.until("several leases", &format!("SELECT sum(beats) > {beats} + 18 FROM insula.worker")).await;
    let still = "SELECT count(*) FROM insula.job j JOIN insula.worker_list() w ON w.no = j.worker
        WHERE j.state = 'r' AND j.kind = 'stuck' AND j.attempt = 1 AND w.running = 1 AND w.kinds ->> 'stuck' = '1' AND j.started_at < now() - interval '1 second'";
    assert_eq!(house.count(still).await, 1, "at its first attempt, where it was");
    let longest = || {
        let text = meters.render("test");
        let line = text.lines().find_map(|line| line.strip_prefix("insula_jobs_longest_seconds ").map(str::to_owned));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default()
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while longest() < 1.0 {
        assert!(tokio::time::Instant::now() < deadline, "nobody sees it: {}", longest());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    *RELEASED.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    RELEASED.1.notify_all();
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end").await, 0, "it went well in the end");
    one.stop().await;
    two.stop().await;
}

static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// Forgets a transaction, and leaves a task that holds another for ever.
#[derive(Serialize, Deserialize)]
struct Leaks;

impl Job for Leaks {
    const KIND: &'static str = "leaks";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { attempts: 2, backoff: QUICK, timeout: Duration::from_millis(500), ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        let mut forgotten = context.begin().await?;
        sqlx::query("INSERT INTO effect (id, attempt) VALUES ($1, 0)").bind(context.id()).execute(&mut forgotten).await?;
        std::mem::forget(forgotten);
        LEAKED.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let _held = context.begin().await;
            std::future::pending::<()>().await;
        });
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_tenant_s_jobs_leak_is_bounded_by_what_it_may_have_and_takes_nothing_from_others() {
    let house = House::new(3).await;
    let most = house.catalog.by_slug("t1").expect("a tenant").plan.limits.max_connections;
    let config = WorkerConfig { concurrency: 8, ..house.config() };
    let worker = house.worker_with(Jobs::new().with::<Leaks>().with::<Note>(), config);
    send_all(&house.data, &house.tenant(1), &(0..200).map(|_| Leaks).collect::<Vec<_>>(), &Enqueue::default())
        .await
        .expect("sent");
    // All that it may have is gone, and more of them have failed for want of it.
    house.until("it to have leaked", "SELECT count(*) = 1 FROM insula.lane WHERE tenant_id = 1 AND failures >= 10").await;
    let leaked = LEAKED.load(Ordering::SeqCst);
    assert!(leaked > 0 && leaked <= most as usize, "{leaked} of {most}");
    let notes: Vec<Note> = (0..200).map(|n| Note::new(&n.to_string(), 1)).collect();
    for no in [2, 3] {
        send_all(&house.data, &house.tenant(no), &notes, &Enqueue::default()).await.expect("sent");
    }
    house.until("the others' jobs", "SELECT count(*) = 400 FROM app.done").await;
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'insula_app' AND datname = current_database()";
    assert!(house.count(connections).await <= 24, "as many as the pool may have");
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'insula_app' AND datname = current_database() AND state = 'idle in transaction'";
    assert!(house.count(open).await <= i64::from(most), "open transactions of the one that leaks");
    worker.stop().await;
}
