//! The breaker of a lane and the budget of retries: what fails is tried less and less, and harms neither other lanes nor other tenants.

use std::time::Duration;

use insula_jobs::{Enqueue, Job, JobContext, JobError, Jobs, KindRules, WorkerConfig, send_all};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::house::{ByHand, House, Note, Nothing, QUICK};

/// In a line of its own.
#[derive(Serialize, Deserialize)]
struct Capped;

impl Job for Capped {
    const KIND: &'static str = "capped";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { cap: Some(50), ..KindRules::default() }
    }
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        Ok(())
    }
}

const LANE: &str = "FROM insula.lane WHERE tenant_id = 1 AND lane = ''";

/// The server's clock.
async fn now(house: &House) -> String {
    let sql = "SELECT clock_timestamp()::text";
    sqlx::query_scalar(sql).fetch_one(&mut house.admin().await).await.expect("a time")
}

#[tokio::test]
async fn a_breaker_opens_for_a_second_lets_one_try_and_closes_when_that_goes_well() {
    let house = House::new(1).await;
    let one = house.tenant(1);
    let nothings: Vec<Nothing> = (0..40).map(|_| Nothing).collect();
    send_all(&house.data, &one, &nothings, &Enqueue::default()).await.expect("sent");
    let mut hand = ByHand::new(&house).await;
    let fail = |taken: &[(i64, _)], attempt: i32| {
        let end = |(tenant, id): &(i64, insula_jobs::JobId)| json!({ "t": tenant, "i": id, "a": attempt, "l": "", "o": "retry", "d": 0, "e": "x" });
        taken.iter().map(end).collect::<Vec<_>>().into()
    };
    let taken = hand.work(&[], 20).await;
    assert_eq!(taken.len(), 20);
    // However many were at work when all of it began to fail: for a second.
    let before = now(&house).await;
    hand.settle(fail(&taken, 1)).await;
    let opened = format!(
        "SELECT count(*) {LANE} AND failures = 10 AND NOT ready AND wake_at > '{before}' AND wake_at <= now() + interval '1 second'"
    );
    assert_eq!(house.count(&opened).await, 1);
    // It lasts for as long as it is looked at.
    let lasts = "UPDATE insula.lane SET wake_at = now() + interval '15 seconds' WHERE wake_at IS NOT NULL";
    sqlx::query(lasts).execute(&mut hand.admin).await.expect("put off");
    // Another line of the tenant goes on, and what goes well there says nothing of this one.
    send_all(&house.data, &one, &(0..5).map(|_| Capped).collect::<Vec<_>>(), &Enqueue::default()).await.expect("sent");
    let others = hand.work(&[], 20).await;
    assert_eq!(house.count("SELECT count(*) FROM insula.job WHERE state = 'r' AND lane = 'capped'").await, 5);
    assert_eq!(others.len(), 5, "nothing of the stopped one");
    assert!(hand.work(&others, 20).await.is_empty());
    assert_eq!(house.count(&format!("SELECT failures::bigint {LANE}")).await, 10);
    // Its second is over: one may try.
    hand.wake().await;
    let tries = hand.work(&[], 20).await;
    assert_eq!(tries.len(), 1);
    assert!(hand.work(&[], 20).await.is_empty(), "while it is at work, no other");
    let attempt = house.count("SELECT attempt::bigint FROM insula.job WHERE state = 'r'").await;
    let before = now(&house).await;
    hand.settle(fail(&tries, i32::try_from(attempt).expect("small"))).await;
    let longer = format!(
        "SELECT count(*) {LANE} AND failures = 11 AND NOT ready
            AND wake_at BETWEEN '{before}'::timestamptz + interval '1 second' AND now() + interval '2 seconds'"
    );
    assert_eq!(house.count(&longer).await, 1);
    hand.wake().await;
    let tries = hand.work(&[], 20).await;
    assert_eq!(tries.len(), 1);
    let attempt = house.count("SELECT attempt::bigint FROM insula.job WHERE state = 'r'").await;
    hand.done(&tries, i32::try_from(attempt).expect("small")).await;
    assert_eq!(house.count(&format!("SELECT count(*) {LANE} AND failures = 0")).await, 1, "it is closed");
    assert_eq!(hand.work(&[], 50).await.len(), 39);
}

/// Fails the first time, and goes well then.
#[derive(Serialize, Deserialize)]
struct Once;

impl Job for Once {
    const KIND: &'static str = "once";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { attempts: 50, backoff: QUICK, ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        if context.attempt() == 1 { Err(JobError::retry("the first")) } else { Note::new("once", 0).run(context).await }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_retries_are_paid_for_by_what_goes_well() {
    let house = House::new(2).await;
    let config = WorkerConfig { concurrency: 40, ..house.config() };
    let worker = house.worker_with(Jobs::new().with::<Once>().with::<Nothing>(), config);
    let once = |count: usize| (0..count).map(|_| Once).collect::<Vec<_>>();
    let waits = |long: i64, done: i64| {
        format!(
            "SELECT count(*) = {long} AND count(*) FILTER (WHERE state = 'l' AND due > now() + interval '5 seconds') = {long}
                AND (SELECT count(*) FROM app.done WHERE tenant_id = 1) = {done} FROM insula.job WHERE tenant_id = 1"
        )
    };
    // Twenty are paid for to begin with.
    send_all(&house.data, &house.tenant(1), &once(30), &Enqueue::default()).await.expect("sent");
    house.until("twenty to be tried again, and ten to wait for a minute", &waits(10, 20)).await;
    // A tenth of what went well since: two for those twenty, and two for these, whose ends are kept.
    let kept = Enqueue { retention: Some(Duration::from_secs(600)), ..Enqueue::default() };
    let nothings: Vec<Nothing> = (0..20).map(|_| Nothing).collect();
    send_all(&house.data, &house.tenant(1), &nothings, &kept).await.expect("sent");
    house.until("them", "SELECT count(*) = 20 FROM insula.job_end WHERE outcome = 'done'").await;
    send_all(&house.data, &house.tenant(1), &once(9), &Enqueue::default()).await.expect("sent");
    house.until("four more", &waits(15, 24)).await;
    // Another tenant has a budget of its own.
    send_all(&house.data, &house.tenant(2), &once(9), &Enqueue::default()).await.expect("sent");
    house.until("the other's", "SELECT count(*) = 9 FROM app.done WHERE tenant_id = 2").await;
    worker.stop().await;
}
