//! The server's clock leaps in mid-lease: nobody is given up, nothing runs twice, and nothing waits for the time of before.

use std::time::Duration;

use insula_core::FeatureValue;
use insula_jobs::{Enqueue, Job, JobContext, JobError, Jobs, KindRules, send, send_all};
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;

use crate::house::{House, Note};

/// As far as the queue can see, its clock goes by so much: every moment that it has written down goes the other way.
async fn leap(house: &House, years: i32) {
    let sql = format!(
        "DO $do$
        DECLARE
            t record;
        BEGIN
            LOCK TABLE insula.queue, insula.job, insula.cancellation, insula.lane, insula.lane_name, insula.arrival, insula.worker, insula.job_end;
            FOR t IN SELECT a.attrelid::regclass AS name, string_agg(format('%1$I = %1$I - interval ''{years} years''', a.attname), ', ') AS moments
                       FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                      WHERE c.relnamespace = 'insula'::regnamespace AND c.relkind = 'r' AND a.atttypid = 'timestamptz'::regtype AND NOT a.attisdropped
                        AND c.relname IN ('queue', 'job', 'cancellation', 'lane', 'lane_name', 'arrival', 'worker', 'job_end') GROUP BY 1 LOOP
                EXECUTE format('UPDATE %s SET %s', t.name, t.moments);
            END LOOP;
        END $do$"
    );
    let mut admin = house.admin().await;
    // It locks what others lock, in another order: then it is this one that gives way.
    sqlx::query("SET deadlock_timeout = '5ms'").execute(&mut admin).await.expect("a setting");
    for _ in 0..1_000 {
        match sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut admin).await {
            Ok(_) => return,
            Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("40P01") => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("always in the way of others");
}

/// Paced: its lane waits for its time.
#[derive(Serialize, Deserialize)]
struct Paced;

impl Job for Paced {
    const KIND: &'static str = "paced";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { rate: Some(10.0), attempts: 50, ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        Note::new("paced", 0).run(context).await
    }
}

fn notes(count: usize, millis: u64) -> Vec<Note> {
    (0..count).map(|n| Note::new(&n.to_string(), millis)).collect()
}

async fn worker_numbers(house: &House) -> Vec<i64> {
    sqlx::query_scalar("SELECT no FROM insula.worker ORDER BY no").fetch_all(&mut house.admin().await).await.expect("numbers")
}

async fn a_leap_in_mid_lease(years: i32) {
    let house = House::new(4).await;
    // Its two lines take turns by when they were served last.
    let feature = ("max_concurrent_jobs".to_owned(), insula_core::Override::Value(FeatureValue::Number(1)));
    house.change(4, |row| row.features = [feature].into()).await;
    // Its breaker has opened, for a while.
    let stopped = "INSERT INTO insula.lane (tenant_id, failures, wake_at) VALUES (3, 13, now() + interval '15 seconds')";
    sqlx::query(stopped).execute(&mut house.admin().await).await.expect("stopped");
    let kinds = Jobs::new().with::<Note>().with::<Paced>();
    let workers = [house.worker(kinds.clone()), house.worker(kinds)];
    let now = Enqueue::default();
    send_all(&house.data, &house.tenant(1), &notes(10, 1_500), &now).await.expect("sent");
    let later = Enqueue { delay: Duration::from_secs(3), ..Enqueue::default() };
    send(&house.data, &house.tenant(1), &Note::new("later", 0), &later).await.expect("sent");
    send_all(&house.data, &house.tenant(2), &(0..50).map(|_| Paced).collect::<Vec<_>>(), &now).await.expect("sent");
    send_all(&house.data, &house.tenant(3), &notes(12, 0), &now).await.expect("sent");
    send_all(&house.data, &house.tenant(4), &notes(40, 20), &now).await.expect("sent");
    send_all(&house.data, &house.tenant(4), &[Paced, Paced], &now).await.expect("sent");
    // Jobs at work, a lane that waits for its pace, one that its breaker stopped.
    let midst = "SELECT (SELECT count(*) FROM insula.job WHERE state = 'r' AND tenant_id = 1) > 0
        AND coalesce((SELECT wake_at IS NOT NULL FROM insula.lane WHERE tenant_id = 2 AND lane = 'paced'), false)
        AND coalesce((SELECT failures >= 10 AND wake_at IS NOT NULL FROM insula.lane WHERE tenant_id = 3), false)
        AND (SELECT swept_at > '-infinity' FROM insula.queue)";
    house.until("everything to be in its midst", midst).await;
    let before = worker_numbers(&house).await;
    leap(&house, years).await;
    house.empty().await;
    assert_eq!(worker_numbers(&house).await, before, "nobody was given up");
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end").await, 0, "none is dead");
    for (no, jobs) in [(1, 11), (2, 50), (3, 12), (4, 42)] {
        let done = house.count(&format!("SELECT count(*) FROM app.done WHERE tenant_id = {no}")).await;
        assert_eq!(done, jobs, "each of tenant {no} once");
    }
    let again = "SELECT count(*) FROM app.done WHERE tenant_id = 1 AND what <> 'later' AND attempt > 1";
    assert_eq!(house.count(again).await, 0, "what ran went on");
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clock_that_goes_ahead_by_a_year_ends_no_lease_and_runs_nothing_twice() {
    a_leap_in_mid_lease(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clock_that_is_set_back_by_a_year_lets_nothing_wait_for_a_year() {
    a_leap_in_mid_lease(-1).await;
}
