//! Transactions of a tenant that stay open: others' jobs go on, whatever they have cancelled or enqueued.

use std::time::Duration;

use insula_jobs::{Enqueue, JobId, Jobs, cancel, enqueue, send, send_all, state};
use sqlx::PgConnection;

use crate::house::{House, Note};
use crate::life::Endless;

const CANCEL: &str = "SELECT count(*) FILTER (WHERE insula.cancel_job(x)) FROM unnest($1::uuid[]) x";

fn notes(count: usize) -> Vec<Note> {
    (0..count).map(|n| Note::new(&n.to_string(), 0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_transaction_that_has_cancelled_waiting_jobs() {
    let house = House::new(2).await;
    let (one, two) = (house.tenant(1), house.tenant(2));
    let ids = send_all(&house.data, &one, &notes(700), &Enqueue::default()).await.expect("sent");
    let mut open = house.data.begin(&one).await.expect("a transaction");
    let told: i64 = sqlx::query_scalar(CANCEL).bind(&ids).fetch_one(&mut open).await.expect("an answer");
    assert_eq!(told, 700);
    send_all(&house.data, &two, &notes(200), &Enqueue::default()).await.expect("sent");
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("the other's jobs", "SELECT count(*) = 200 FROM app.done WHERE tenant_id = 2").await;
    // Nor do its own: nothing is cancelled before that is committed.
    house.until("its own jobs", "SELECT count(*) = 700 FROM app.done WHERE tenant_id = 1").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE attempt > 1").await, 0);
    open.commit().await.expect("committed");
    house.until("what came too late to be forgotten", "SELECT count(*) = 0 FROM insula.cancellation").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_transaction_that_has_cancelled_a_running_job() {
    let house = House::new(2).await;
    let (one, two) = (house.tenant(1), house.tenant(2));
    let lasting = send(&house.data, &one, &Endless, &Enqueue::default()).await.expect("sent").expect("new");
    let slow: Vec<Note> = (0..3).map(|n| Note::new(&format!("slow {n}"), 3_000)).collect();
    let slow = send_all(&house.data, &one, &slow, &Enqueue::default()).await.expect("sent");
    let worker = house.worker(Jobs::new().with::<Note>().with::<Endless>());
    house.until("all to run", "SELECT count(*) = 4 FROM insula.job WHERE state = 'r'").await;
    let mut open = house.data.begin(&one).await.expect("a transaction");
    let told: i64 =
        sqlx::query_scalar(CANCEL).bind([&slow[..], &[lasting]].concat()).fetch_one(&mut open).await.expect("an answer");
    assert_eq!(told, 4);
    send_all(&house.data, &two, &notes(200), &Enqueue::default()).await.expect("sent");
    house.until("the other's jobs", "SELECT count(*) = 200 FROM app.done WHERE tenant_id = 2").await;
    // They end, while the transaction is open; and the worker keeps its lease.
    house.until("the slow ones", "SELECT count(*) = 3 FROM app.done WHERE tenant_id = 1").await;
    house.until("their ends", "SELECT count(*) = 1 FROM insula.job").await;
    house.until("progress", "SELECT count(*) = 1 FROM insula.job WHERE progress ->> 'percent' = '7'").await;
    assert_eq!(house.count("SELECT count(*) FROM insula.job WHERE attempt > 1").await, 0);
    open.commit().await.expect("committed");
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end WHERE outcome = 'cancelled'").await, 1);
    house.until("the rest to be forgotten", "SELECT count(*) = 0 FROM insula.cancellation").await;
    worker.stop().await;
}

pub(crate) async fn begin(admin: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT insula.worker_begin('test', 3600000)").fetch_one(admin).await.expect("a worker")
}

/// Ends what it was given before, and takes.
pub(crate) async fn work(admin: &mut PgConnection, me: i64, done: &[JobId], want: i64) -> Vec<JobId> {
    let sql = "SELECT id FROM insula.work($1, array_fill(1::bigint, ARRAY[cardinality($2::uuid[])]), $2, array_fill(1, ARRAY[cardinality($2)]), $3)";
    sqlx::query_scalar(sql).bind(me).bind(done).bind(want).fetch_all(admin).await.expect("jobs")
}

#[tokio::test]
async fn what_is_cancelled_never_starts_and_what_is_not_after_all_does() {
    let house = House::new(1).await;
    let one = house.tenant(1);
    let ids = send_all(&house.data, &one, &notes(2_010), &Enqueue::default()).await.expect("sent");
    let later = Enqueue { delay: Duration::from_secs(99), ..Enqueue::default() };
    let later = send(&house.data, &one, &Note::new("later", 0), &later).await.expect("sent").expect("new");
    let mut admin = house.admin().await;
    let me = begin(&mut admin).await;
    let mut tx = house.data.begin(&one).await.expect("a transaction");
    let told: i64 = sqlx::query_scalar(CANCEL).bind(&ids[..]).fetch_one(&mut tx).await.expect("an answer");
    assert_eq!(told, 2_010);
    tx.rollback().await;
    let first = work(&mut admin, me, &[], 1).await;
    assert_eq!(first, ids[..1], "nothing is cancelled by what was rolled back");
    // Two at a time: what was chosen and passed does not block its lane for ever.
    sqlx::query("SELECT insula.tell_lanes('[{\"t\": 1, \"l\": \"\", \"w\": 1, \"c\": 2, \"m\": 1}]')")
        .execute(&mut admin)
        .await
        .expect("told");
    let mut tx = house.data.begin(&one).await.expect("a transaction");
    let cancelled = [&ids[..2_005], &[later]].concat();
    let told: i64 = sqlx::query_scalar(CANCEL).bind(&cancelled).fetch_one(&mut tx).await.expect("an answer");
    assert_eq!(told, 2_006);
    assert!(!cancel(&mut tx, later).await.expect("an answer"), "it is over already");
    let shown = async |tx: &mut _, id| state(tx, id).await.expect("an answer").expect("a job").state;
    assert_eq!(shown(&mut tx, ids[7]).await, "cancelled");
    tx.commit().await.expect("committed");
    let mut tx = house.data.begin(&one).await.expect("a transaction");
    for (id, expected) in [(ids[0], "running"), (ids[7], "cancelled"), (later, "cancelled"), (ids[2_006], "waiting")] {
        assert_eq!(shown(&mut tx, id).await, expected);
    }
    tx.rollback().await;
    let listed = |state: &str| format!("SELECT count(*) FROM insula.job_list(1, '{state}', NULL, NULL, 10000)");
    for (state, expected) in [("cancelled", 2_005), ("waiting", 5), ("later", 0), ("running", 1)] {
        assert_eq!(house.count(&listed(state)).await, expected, "{state}");
    }
    let told: Vec<JobId> = sqlx::query_scalar("SELECT id FROM insula.worker_beat($1, NULL, NULL) WHERE id IS NOT NULL")
        .bind(me)
        .fetch_all(&mut admin)
        .await
        .expect("a beat");
    assert_eq!(told, first);
    // What runs ends well before it has heard of it, and with it goes its cancellation; the five others run, and nothing else does.
    let (mut done, mut ran) = (first, Vec::new());
    for _ in 0..100 {
        done = work(&mut admin, me, &done, 10).await;
        assert!(done.len() <= 2);
        ran.extend(done.iter().copied());
        if ran.len() == 5 && done.is_empty() {
            break;
        }
    }
    assert_eq!(ran, ids[2_005..]);
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end WHERE outcome = 'cancelled'").await, 2_005);
    assert_eq!(house.count("SELECT count(*) FROM insula.job").await, 0);
    assert_eq!(house.count("SELECT count(*) FROM insula.cancellation").await, 0);
}

#[tokio::test]
async fn a_cancelled_job_s_key_is_free_at_once_and_has_one_heir() {
    let house = House::new(1).await;
    let one = house.tenant(1);
    let keyed = Enqueue { key: Some("k".into()), ..Enqueue::default() };
    let old = send(&house.data, &one, &Note::new("old", 0), &keyed).await.expect("sent").expect("new");
    for keep in [false, true] {
        let mut tx = house.data.begin(&one).await.expect("a transaction");
        assert!(enqueue(&mut tx, &Note::new("none", 0), &keyed).await.expect("an answer").is_none());
        assert!(cancel(&mut tx, old).await.expect("an answer"));
        let first = enqueue(&mut tx, &Note::new("first", 0), &keyed).await.expect("an answer").expect("an heir");
        assert!(enqueue(&mut tx, &Note::new("none", 0), &keyed).await.expect("an answer").is_none());
        assert!(cancel(&mut tx, first).await.expect("an answer"));
        assert!(enqueue(&mut tx, &Note::new("second", 0), &keyed).await.expect("an answer").is_some());
        assert!(enqueue(&mut tx, &Note::new("none", 0), &keyed).await.expect("an answer").is_none());
        if keep {
            tx.commit().await.expect("committed");
        } else {
            tx.rollback().await;
        }
    }
    assert!(send(&house.data, &one, &Note::new("none", 0), &keyed).await.expect("sent").is_none());
    let mut admin = house.admin().await;
    let me = begin(&mut admin).await;
    let second = work(&mut admin, me, &[], 10).await;
    assert_eq!(second.len(), 1);
    assert_eq!(
        house.count("SELECT count(*) FROM insula.job WHERE body ->> 'what' = 'second' AND key = 'k' AND state = 'r'").await,
        1
    );
    assert!(send(&house.data, &one, &Note::new("none", 0), &keyed).await.expect("sent").is_none());
    assert!(work(&mut admin, me, &second, 10).await.is_empty());
    assert!(send(&house.data, &one, &Note::new("free", 0), &keyed).await.expect("sent").is_some());
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end WHERE outcome = 'cancelled'").await, 2);
}
