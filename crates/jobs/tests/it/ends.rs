//! How long ends are kept: what each promises, and no longer.

use std::time::Duration;

use insula_jobs::{Enqueue, JobId, Jobs, cancel, send, state};
use sqlx::AssertSqlSafe;

use crate::house::{House, Nothing};

/// Lets so much time pass for what has ended.
async fn later(house: &House, by: &str) {
    let sql = format!(
        "UPDATE insula.job_end SET expires_at = expires_at - interval '{by}', ended_at = ended_at - interval '{by}';
         UPDATE insula.queue SET swept_at = '-infinity'"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut house.admin().await).await.expect("later");
    // A worker keeps house, with one of its next beats.
    house.until("a sweep", "SELECT swept_at > '-infinity' FROM insula.queue").await;
}

async fn known(house: &House, id: JobId) -> Option<String> {
    let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
    state(&mut tx, id).await.expect("an answer").map(|job| job.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn results_cancelled_jobs_and_dead_letters_are_kept_as_long_as_promised() {
    let house = House::new(1).await;
    let one = house.tenant(1);
    let kept = |seconds| Enqueue { retention: Some(Duration::from_secs(seconds)), ..Enqueue::default() };
    let overdue = Enqueue { deadline: Some(Duration::ZERO), ..Enqueue::default() };
    let delayed = Enqueue { delay: Duration::from_secs(99), ..kept(60) };
    let mut ids = Vec::new();
    for options in
        [kept(600), kept(0), overdue.clone(), Enqueue { retention: Some(Duration::from_secs(30 * 86_400)), ..overdue }, delayed]
    {
        ids.push(send(&house.data, &one, &Nothing, &options).await.expect("sent").expect("new"));
    }
    let mut tx = house.data.begin(&one).await.expect("a transaction");
    assert!(cancel(&mut tx, ids[4]).await.expect("an answer"));
    tx.commit().await.expect("committed");
    let worker = house.worker(Jobs::new().with::<Nothing>());
    house.empty().await;
    let expected = |states: [Option<&str>; 5]| states.map(|state| state.map(str::to_owned));
    let all = async || {
        let mut found = [const { None }; 5];
        for (at, id) in ids.iter().enumerate() {
            found[at] = known(&house, *id).await;
        }
        found
    };
    assert_eq!(all().await, expected([Some("done"), None, Some("dead"), Some("dead"), Some("cancelled")]));
    later(&house, "500 seconds").await;
    assert_eq!(all().await, expected([Some("done"), None, Some("dead"), Some("dead"), Some("cancelled")]));
    later(&house, "101 seconds").await;
    assert_eq!(all().await, expected([None, None, Some("dead"), Some("dead"), Some("cancelled")]), "ten minutes");
    later(&house, "1 day").await;
    assert_eq!(all().await, expected([None, None, Some("dead"), Some("dead"), None]), "a day");
    later(&house, "12 days 20 hours").await;
    assert_eq!(all().await, expected([None, None, Some("dead"), Some("dead"), None]));
    later(&house, "1 day").await;
    assert_eq!(all().await, expected([None, None, None, Some("dead"), None]), "two weeks");
    later(&house, "17 days").await;
    assert_eq!(all().await, expected([None; 5]), "what it asked for");
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end").await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn what_expires_goes_some_thousands_at_a_time_the_oldest_first() {
    let house = House::new(1).await;
    let fill = "INSERT INTO insula.job_end (tenant_id, id, outcome, kind, lane, rank, attempt, attempts, cost, keep, created_at, ended_at, expires_at, body)
        SELECT 1, gen_random_uuid(), 'done', 'note', '', 0, 1, 1, 1, 1, now(), now(), now() + (n - 6000) * interval '1 second', '{}' FROM generate_series(1, 7000) n";
    sqlx::query(fill).execute(&mut house.admin().await).await.expect("ends");
    for (left, gone) in [
        (2_000, "SELECT min(expires_at) > now() - interval '1 hour' FROM insula.job_end"),
        (1_000, "SELECT min(expires_at) > now() - interval '1 minute' FROM insula.job_end"),
    ] {
        let swept: bool =
            sqlx::query_scalar("SELECT insula.sweep_queue(0)").fetch_one(&mut house.admin().await).await.expect("a sweep");
        assert!(swept);
        let found = house.count("SELECT count(*) FROM insula.job_end").await;
        assert!((left - 50..=left).contains(&found), "{found}");
        house.until("the oldest to be gone", gone).await;
    }
    // Not again so soon.
    let swept: bool =
        sqlx::query_scalar("SELECT insula.sweep_queue(60000)").fetch_one(&mut house.admin().await).await.expect("a sweep");
    assert!(!swept);
}
