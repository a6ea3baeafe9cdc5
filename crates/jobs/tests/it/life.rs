//! The life of one job: enqueued with its transaction, run in its tenant's scope, ended, asked for, cancelled, held.

use std::time::Duration;

use insula_core::{TenantState, scope};
use insula_jobs::{Enqueue, Job, JobContext, JobError, Jobs, KindRules, cancel, enqueue, enqueue_all, send, send_all, state};
use serde::{Deserialize, Serialize};

use crate::house::{House, Note, QUICK};

/// Answers who it ran for.
#[derive(Serialize, Deserialize)]
struct Who;

impl Job for Who {
    const KIND: &'static str = "who";
    type Output = (i64, Option<String>, bool);
    fn rules() -> KindRules {
        KindRules { retention: Duration::from_secs(600), ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<Self::Output, JobError> {
        let bound = scope::tenant().map(|(_, no)| no);
        let mut tx = context.begin().await?;
        let (seen,): (i64,) = sqlx::query_as("SELECT insula.current_tenant()").fetch_one(&mut tx).await?;
        tx.commit().await?;
        let principal = context.tenant().principal.as_deref().map(str::to_owned);
        Ok((seen, principal, bound == Some(context.tenant().no)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_as_its_tenant_and_its_answer_is_kept() {
    let house = House::new(3).await;
    let worker = house.worker(Jobs::new().with::<Who>());
    let mut ids = Vec::new();
    for no in 1..=3 {
        ids.push((no, send(&house.data, &house.tenant(no), &Who, &Enqueue::default()).await.expect("sent").expect("new")));
    }
    house.empty().await;
    for (no, id) in ids {
        let mut tx = house.data.begin(&house.tenant(no)).await.expect("a transaction");
        let end = state(&mut tx, id).await.expect("a state").expect("kept");
        assert_eq!((end.state.as_str(), end.result), ("done", Some(serde_json::json!([no, "user-1", true]))));
        let mut other = house.data.begin(&house.tenant(no % 3 + 1)).await.expect("a transaction");
        assert_eq!(state(&mut other, id).await.expect("a state"), None, "another tenant's");
    }
    worker.stop().await;
    assert_eq!(house.count("SELECT count(*) FROM insula.worker").await, 0, "it left in good order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_exists_exactly_when_its_transaction_committed() {
    let house = House::new(1).await;
    let worker = house.worker(Jobs::new().with::<Note>());
    let one = house.tenant(1);
    let mut kept = house.data.begin(&one).await.expect("a transaction");
    let mut dropped = house.data.begin(&one).await.expect("a transaction");
    enqueue(&mut dropped, &Note::new("never", 0), &Enqueue::default()).await.expect("enqueued");
    let jobs: Vec<Note> = (0..2_500).map(|n| Note::new(&n.to_string(), 0)).collect();
    enqueue_all(&mut kept, &jobs, &Enqueue::default()).await.expect("enqueued");
    dropped.rollback().await;
    // Workers look meanwhile, and must not overlook what comes later.
    house.until("a look", "SELECT count(*) > 0 FROM insula.worker WHERE beats > 1").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 0);
    kept.commit().await.expect("committed");
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE what <> 'never'").await, 2_500);
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 2_500);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_unique_while_their_job_lives_delays_and_priorities_hold_and_deadlines_end() {
    let house = House::new(2).await;
    let one = house.tenant(1);
    let keyed = Enqueue { key: Some("k".to_owned()), ..Enqueue::default() };
    assert!(send(&house.data, &one, &Note::new("keyed", 0), &keyed).await.expect("sent").is_some());
    assert!(send(&house.data, &one, &Note::new("again", 0), &keyed).await.expect("sent").is_none(), "its key is taken");
    assert!(
        send(&house.data, &house.tenant(2), &Note::new("keyed", 0), &keyed).await.expect("sent").is_some(),
        "another tenant's"
    );
    let low = Enqueue { priority: -5, ..Enqueue::default() };
    let high = Enqueue { priority: 5, ..Enqueue::default() };
    let later = Enqueue { delay: Duration::from_secs(6), ..Enqueue::default() };
    let overdue = Enqueue { deadline: Some(Duration::ZERO), ..Enqueue::default() };
    for (what, options) in [("low", &low), ("later", &later), ("high", &high), ("overdue", &overdue)] {
        send(&house.data, &one, &Note::new(what, 0), options).await.expect("sent");
    }
    let worker = house.worker_with(Jobs::new().with::<Note>(), insula_jobs::WorkerConfig { concurrency: 1, ..house.config() });
    house.empty().await;
    let order = "SELECT string_agg(what, ' ' ORDER BY at) FROM app.done WHERE tenant_id = 1";
    let order: String = sqlx::query_scalar(order).fetch_one(&mut house.admin().await).await.expect("an order");
    assert_eq!(order, "high keyed low later");
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end WHERE outcome = 'dead' AND error LIKE 'its deadline%'").await, 1);
    assert!(send(&house.data, &one, &Note::new("free again", 0), &keyed).await.expect("sent").is_some());
    house.empty().await;
    worker.stop().await;
}

/// Says how far it is, then waits to be cancelled.
#[derive(Serialize, Deserialize)]
pub(crate) struct Endless;

impl Job for Endless {
    const KIND: &'static str = "endless";
    type Output = ();
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        context.progress(serde_json::json!({ "percent": 7 }));
        std::future::pending::<()>().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_show_progress_and_are_cancelled_waiting_or_running() {
    let house = House::new(2).await;
    let (one, two) = (house.tenant(1), house.tenant(2));
    let waiting = send(&house.data, &two, &Endless, &Enqueue { delay: Duration::from_secs(99), ..Enqueue::default() })
        .await
        .expect("sent")
        .expect("new");
    let running = send(&house.data, &one, &Endless, &Enqueue::default()).await.expect("sent").expect("new");
    let worker = house.worker(Jobs::new().with::<Endless>());
    house.until("progress", "SELECT count(*) = 1 FROM insula.job WHERE progress ->> 'percent' = '7'").await;
    for (context, id, expected) in [(&two, running, false), (&one, running, true), (&two, waiting, true)] {
        let mut tx = house.data.begin(context).await.expect("a transaction");
        assert_eq!(cancel(&mut tx, id).await.expect("an answer"), expected);
        tx.commit().await.expect("committed");
    }
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end WHERE outcome = 'cancelled'").await, 2);
    assert_eq!(house.count("SELECT count(*) FROM insula.cancellation").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_s_jobs_are_held_and_lost_by_nobody() {
    let house = House::new(2).await;
    let no = house.tenant(1).no;
    let jobs: Vec<Note> = (0..50).map(|n| Note::new(&n.to_string(), 0)).collect();
    for tenant in [1, 2] {
        send_all(&house.data, &house.tenant(tenant), &jobs, &Enqueue::default()).await.expect("sent");
    }
    house.change(1, |row| row.state = TenantState::Suspended).await;
    insula_kit::set_tenant(&mut house.admin().await, no, 2, TenantState::Suspended).await.expect("suspended");
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("the other's jobs", "SELECT count(*) = 50 FROM app.done WHERE tenant_id = 2").await;
    assert_eq!(house.count("SELECT count(*) FROM insula.job WHERE tenant_id = 1 AND attempt = 0").await, 50, "held");
    let row = |row: &mut insula_catalog::row::TenantRow| (row.state, row.placement.epoch) = (TenantState::Active, 3);
    house.change(1, row).await;
    insula_kit::set_tenant(&mut house.admin().await, no, 3, TenantState::Active).await.expect("resumed");
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, 50);
    worker.stop().await;
}

/// Fails so many times.
#[derive(Serialize, Deserialize)]
struct Fails(i32);

impl Job for Fails {
    const KIND: &'static str = "fails";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { attempts: 3, backoff: QUICK, ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        if context.attempt() <= self.0 { Err(JobError::retry(format!("attempt {}", context.attempt()))) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_retried_and_end_as_dead_letters() {
    let house = House::new(1).await;
    let worker = house.worker(Jobs::new().with::<Fails>());
    for times in [0, 2, 3] {
        send(&house.data, &house.tenant(1), &Fails(times), &Enqueue::default()).await.expect("sent");
    }
    house.empty().await;
    let dead: Vec<(String, i32)> =
        sqlx::query_as("SELECT error, attempt FROM insula.job_end").fetch_all(&mut house.admin().await).await.expect("ends");
    assert_eq!(dead, [("attempt 3".to_owned(), 3)]);
    let mut admin = house.admin().await;
    let seen = house.count("SELECT count(*) FROM insula.dead_letters(1, 10) WHERE kind = 'fails' AND error = 'attempt 3'").await;
    assert_eq!(seen, 1);
    let replay = "SELECT insula.dead_replay($1, NULL)";
    for (tenant, expected) in [(2_i64, 0_i64), (1, 1), (1, 0)] {
        let given: i64 = sqlx::query_scalar(replay).bind(tenant).fetch_one(&mut admin).await.expect("an answer");
        assert_eq!(given, expected);
    }
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end").await, 0, "its fourth attempt went well");
    send(&house.data, &house.tenant(1), &Fails(9), &Enqueue { attempts: Some(1), ..Enqueue::default() }).await.expect("sent");
    house.until("a dead letter", "SELECT count(*) = 1 FROM insula.job_end").await;
    assert_eq!(house.count("SELECT insula.dead_purge(1, now() - interval '1 hour')").await, 0);
    assert_eq!(house.count("SELECT insula.dead_purge(1, clock_timestamp())").await, 1);
    worker.stop().await;
}
