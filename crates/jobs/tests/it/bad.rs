//! Bad input: each ends in a clear state, loses nothing and runs nothing twice at once.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use insula_jobs::{Enqueue, Error, Job, JobContext, JobError, Jobs, KindRules, OUTPUT_BYTES, enqueue_all, send, send_all};
use serde::{Deserialize, Serialize};

use crate::house::{House, Note, QUICK};

/// Enqueues by hand, as an old version, or somebody with the application's rights, would.
async fn by_hand(house: &House, no: i64, kind: &str, body: &str) -> Result<i64, sqlx::Error> {
    let mut tx = house.data.begin(&house.tenant(no)).await.expect("a transaction");
    let sql = "SELECT insula.enqueue($1, ARRAY[gen_random_uuid()], ARRAY[$2::text], attempts => 2)";
    let given = sqlx::query_scalar(sql).bind(kind).bind(body).fetch_one(&mut tx).await?;
    tx.commit().await.expect("committed");
    Ok(given)
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_kinds_and_bodies_that_do_not_decode_end_as_dead_letters() {
    let house = House::new(1).await;
    let worker = house.worker(Jobs::new().with::<Note>());
    by_hand(&house, 1, "note", r#"{"other": true}"#).await.expect("enqueued");
    by_hand(&house, 1, "nobody-knows", "{}").await.expect("enqueued");
    house
        .until(
            "a dead letter",
            "SELECT count(*) = 1 FROM insula.job_end WHERE outcome = 'dead' AND error LIKE 'its body does not decode%'",
        )
        .await;
    // It waits for a worker that knows it; here its time is made short.
    house.until("a retry", "SELECT count(*) = 1 FROM insula.job WHERE state = 'l' AND error LIKE 'no worker knows%'").await;
    sqlx::query("UPDATE insula.job SET due = now()").execute(&mut house.admin().await).await.expect("due");
    house.until("a dead letter", "SELECT count(*) = 1 FROM insula.job_end WHERE kind = 'nobody-knows' AND attempt = 2").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_or_no_json_are_refused_where_they_are_enqueued() {
    let house = House::new(1).await;
    let large = Note::new(&"x".repeat(10 << 20), 0);
    let refused = send(&house.data, &house.tenant(1), &large, &Enqueue::default()).await.expect_err("too large");
    assert!(matches!(refused, Error::TooLarge { .. }) && refused.kind() == insula_core::Kind::TooLarge);
    for (body, code) in [("x".repeat(10 << 20), "54000"), ("{".to_owned(), "22P02"), ("\"\\u0000\"".to_owned(), "")] {
        let refused = by_hand(&house, 1, "note", &body).await;
        let found = refused.as_ref().err().and_then(|e| e.as_database_error()).and_then(|e| e.code().map(|c| c.into_owned()));
        assert_eq!(found.unwrap_or_default(), code);
    }
    for (kind, bad) in [("", "'{}'"), ("k", "NULL")] {
        let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
        let sql = format!("SELECT insula.enqueue('{kind}', ARRAY[gen_random_uuid()], ARRAY[{bad}::text])");
        let refused = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut tx).await;
        assert!(refused.is_err(), "{kind} {bad}");
    }
}

/// Panics, once by a text and once by a value.
#[derive(Serialize, Deserialize)]
struct Panics;

impl Job for Panics {
    const KIND: &'static str = "panics";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { attempts: 2, backoff: QUICK, ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        if context.attempt() == 1 {
            panic!("for attempt {}", context.attempt());
        }
        std::panic::panic_any(7_u8)
    }
}

/// Says something, and then answers the same.
#[derive(Serialize, Deserialize)]
struct Says(serde_json::Value);

impl Job for Says {
    const KIND: &'static str = "says";
    type Output = serde_json::Value;
    fn rules() -> KindRules {
        KindRules { retention: Duration::from_secs(600), ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<Self::Output, JobError> {
        let said = if self.0 == "large" { "x".repeat(OUTPUT_BYTES).into() } else { self.0 };
        context.progress(said.clone());
        // Longer than several beats, with which it is told.
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(said)
    }
}

/// Said in one statement with what others' jobs say, so it must be nothing that the database refuses.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_says_that_the_database_would_refuse_harms_nobody() {
    let house = House::new(2).await;
    let said = serde_json::json!({ "a\0": ["a\0b"] });
    for body in [said, "large".into()] {
        send(&house.data, &house.tenant(1), &Says(body), &Enqueue::default()).await.expect("sent");
    }
    let notes: Vec<Note> = (0..100).map(|n| Note::new(&n.to_string(), 20)).collect();
    send_all(&house.data, &house.tenant(2), &notes, &Enqueue::default()).await.expect("sent");
    let worker = house.worker(Jobs::new().with::<Says>().with::<Note>());
    let kept = r#"'{"a\uFFFD": ["a\uFFFDb"]}'"#;
    house.until("progress", &format!("SELECT count(*) = 1 FROM insula.job WHERE progress::jsonb = {kept}")).await;
    house.empty().await;
    assert_eq!(
        house.count(&format!("SELECT count(*) FROM insula.job_end WHERE result::jsonb = {kept} AND outcome = 'done'")).await,
        1
    );
    let large =
        "SELECT count(*) FROM insula.job_end WHERE outcome = 'dead' AND attempt = 1 AND error LIKE 'its output is larger than%'";
    assert_eq!(house.count(large).await, 1);
    assert_eq!(
        house.count("SELECT count(*) FROM app.done WHERE tenant_id = 2 AND attempt = 1").await,
        100,
        "each at its first attempt"
    );
    worker.stop().await;
}

/// Waits for ever.
#[derive(Serialize, Deserialize)]
struct Forever;

impl Job for Forever {
    const KIND: &'static str = "forever";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { attempts: 2, backoff: QUICK, timeout: Duration::from_millis(50), ..KindRules::default() }
    }
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_and_endless_jobs_end_their_attempt_and_nothing_else() {
    let house = House::new(2).await;
    let worker = house.worker(Jobs::new().with::<Panics>().with::<Forever>().with::<Note>());
    for _ in 0..3 {
        send(&house.data, &house.tenant(1), &Panics, &Enqueue::default()).await.expect("sent");
        send(&house.data, &house.tenant(1), &Forever, &Enqueue::default()).await.expect("sent");
        send(&house.data, &house.tenant(2), &Note::new("x", 0), &Enqueue::default()).await.expect("sent");
    }
    house.empty().await;
    let dead = "SELECT count(*) FROM insula.job_end WHERE outcome = 'dead' AND attempt = 2 AND error LIKE ";
    assert_eq!(house.count(&format!("{dead} 'it panicked%'")).await, 3);
    assert_eq!(house.count(&format!("{dead} 'it took longer than%'")).await, 3);
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 3);
    worker.stop().await;
}

static AT_ONCE: AtomicI64 = AtomicI64::new(0);
static TWICE: AtomicBool = AtomicBool::new(false);

/// Blocks its thread for longer than the lease.
#[derive(Serialize, Deserialize)]
struct Blocks;

impl Job for Blocks {
    const KIND: &'static str = "blocks";
    type Output = ();
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        TWICE.fetch_or(AT_ONCE.fetch_add(1, Ordering::SeqCst) > 0, Ordering::SeqCst);
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while std::time::Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        AT_ONCE.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_blocks_its_thread_keeps_its_lease_and_is_not_run_twice() {
    let house = House::new(1).await;
    let (one, two) = (house.worker(Jobs::new().with::<Blocks>()), house.worker(Jobs::new().with::<Blocks>()));
    send(&house.data, &house.tenant(1), &Blocks, &Enqueue::default()).await.expect("sent");
    house.empty().await;
    assert!(!TWICE.load(Ordering::SeqCst));
    one.stop().await;
    two.stop().await;
}

/// Enqueues itself again and again.
#[derive(Serialize, Deserialize)]
struct Breeds(u32);

impl Job for Breeds {
    const KIND: &'static str = "breeds";
    type Output = ();
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        if self.0 > 0 {
            let mut tx = context.begin().await?;
            let children: Vec<Breeds> = (0..1_000).map(|_| Breeds(self.0 - 1)).collect();
            enqueue_all(&mut tx, &children, &Enqueue::default()).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_enqueues_itself_a_thousand_times_delays_nobody_else() {
    let house = House::new(2).await;
    let worker = house.worker(Jobs::new().with::<Breeds>().with::<Note>());
    let parents: Vec<Breeds> = (0..20).map(|_| Breeds(1)).collect();
    send_all(&house.data, &house.tenant(1), &parents, &Enqueue::default()).await.expect("sent");
    house.until("children", "SELECT count(*) > 500 FROM insula.job").await;
    send(&house.data, &house.tenant(2), &Note::new("other", 0), &Enqueue::default()).await.expect("sent");
    house.until("the other's", "SELECT count(*) = 1 FROM app.done").await;
    house.empty().await;
    worker.stop().await;
}

/// A worker is its number, which the database gives, and never its name.
#[tokio::test(flavor = "multi_thread")]
async fn two_workers_of_one_name_and_old_numbers_are_told_apart() {
    let house = House::new(1).await;
    let mut admin = house.admin().await;
    let begin = "SELECT insula.worker_begin('same', 60000)";
    let a: i64 = sqlx::query_scalar(begin).fetch_one(&mut admin).await.expect("a number");
    let b: i64 = sqlx::query_scalar(begin).fetch_one(&mut admin).await.expect("a number");
    assert_ne!(a, b);
    send(&house.data, &house.tenant(1), &Note::new("x", 0), &Enqueue::default()).await.expect("sent");
    let take = "SELECT id, attempt FROM insula.work($1, '{}', '{}', '{}', 5)";
    let taken: Vec<(uuid::Uuid, i32)> = sqlx::query_as(take).bind(a).fetch_all(&mut admin).await.expect("taken");
    assert_eq!(taken.len(), 1);
    assert!(
        sqlx::query_as::<_, (uuid::Uuid, i32)>(take).bind(b).fetch_all(&mut admin).await.expect("taken").is_empty(),
        "a has it"
    );
    let done = "SELECT count(*) FROM insula.work($1, ARRAY[1]::bigint[], ARRAY[$2], ARRAY[$3], 0)";
    for (worker, attempt) in [(b, 1), (a, 0), (a, 2)] {
        sqlx::query(done).bind(worker).bind(taken[0].0).bind(attempt).execute(&mut admin).await.expect("an answer");
        assert_eq!(house.count("SELECT count(*) FROM insula.job").await, 1, "not the holder's word: {worker} {attempt}");
    }
    // Given up at the beats it was seen at, and not when it has beaten since.
    sqlx::query("SELECT insula.worker_beat($1, NULL, NULL)").bind(a).execute(&mut admin).await.expect("a beat");
    let bury = "SELECT insula.worker_bury($1, $2)";
    let buried: i64 = sqlx::query_scalar(bury).bind(a).bind(0_i64).fetch_one(&mut admin).await.expect("an answer");
    assert_eq!(buried, -1);
    let buried: i64 = sqlx::query_scalar(bury).bind(a).bind(1_i64).fetch_one(&mut admin).await.expect("an answer");
    assert_eq!(buried, 1, "its job waits again");
    let taken: Vec<(uuid::Uuid, i32)> = sqlx::query_as(take).bind(b).fetch_all(&mut admin).await.expect("taken");
    assert_eq!(taken[0].1, 2, "with the next attempt");
    sqlx::query(done).bind(a).bind(taken[0].0).bind(1).execute(&mut admin).await.expect("an answer");
    assert_eq!(house.count("SELECT count(*) FROM insula.job").await, 1, "the old holder is not believed");
}
