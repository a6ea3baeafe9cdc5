//! What the queue's statements do when two things come at once, and what they read.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use crate::{Pool, enter, number, pid, run, soon};

/// Enqueues one job as the bound tenant.
async fn enqueue(tx: &mut PgConnection, lane: &str, priority: i16) {
    let sql = "SELECT insula.enqueue('nothing', ARRAY[gen_random_uuid()], ARRAY['null'], lane => $1, priority => $2)";
    sqlx::query(sql).bind(lane).bind(priority).execute(tx).await.expect("enqueued");
}

/// Takes up to `want`, until nothing comes.
pub(crate) async fn take(admin: &mut PgConnection, want: i64) -> i64 {
    let sql = "SELECT count(*) FROM insula.work(1, '{}', '{}', '{}', $1)";
    let mut all = 0;
    loop {
        let taken: i64 = sqlx::query_scalar(sql).bind(want).fetch_one(&mut *admin).await.expect("work");
        if taken == 0 {
            return all;
        }
        all += taken;
    }
}

/// A tenant's second lane, in the look that also has something for the first one, idle or not.
#[tokio::test]
async fn a_second_lane_takes_nothing_from_what_came_to_the_first() {
    for waiting in [0, 2] {
        let mut pool = Pool::new().await;
        let one = pool.tenant(1).await;
        let mut app = pool.app().await;
        let pid = pid(&mut app).await;
        let key = pool.key(1);
        let mut tx = app.begin().await.expect("begin");
        enter(&mut tx, &key.sign(one, 1, soon(), pid, -1)).await.expect("enter");
        for _ in 0..=waiting {
            enqueue(&mut tx, "", 0).await;
        }
        tx.commit().await.expect("commit");
        let first = "SELECT count(*) FROM insula.work(1, '{}', '{}', '{}', 1)";
        assert_eq!(number(&mut pool.admin, first).await.expect("work"), 1);
        if waiting == 0 {
            assert_eq!(take(&mut pool.admin, 1).await, 0);
        }
        let ready = number(&mut pool.admin, "SELECT count(*) FROM insula.lane WHERE ready").await.expect("lanes");
        assert_eq!(ready, i64::from(waiting > 0));
        let mut tx = app.begin().await.expect("begin");
        enter(&mut tx, &key.sign(one, 1, soon(), pid, -1)).await.expect("enter");
        enqueue(&mut tx, "", 9).await;
        enqueue(&mut tx, "capped", 0).await;
        tx.commit().await.expect("commit");
        assert_eq!(take(&mut pool.admin, 10).await, i64::from(waiting) + 2, "{waiting} waited in the first lane");
        let siblings = number(&mut pool.admin, "SELECT count(*) FROM insula.lane WHERE siblings").await.expect("lanes");
        assert_eq!(siblings, 2);
    }
}

/// Waits until a session waits for another's row.
pub(crate) async fn until_one_waits(admin: &mut PgConnection) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..12_000 {
        if number(admin, sql).await.expect("activity") > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody waits");
}

/// Of 100,000 that wait for their time, a list of one tenant's reads that tenant's.
#[tokio::test]
async fn what_one_tenant_has_delayed_is_listed_without_reading_everybody_s() {
    let mut pool = Pool::new().await;
    let fill = "INSERT INTO insula.job (tenant_id, id, state, due, created_at, kind, body)
        SELECT CASE WHEN n % 5000 = 0 THEN 1 ELSE 2 + n % 100 END, gen_random_uuid(), 'l', now() + interval '1 hour', now(), 'nothing', 'null'
          FROM generate_series(1, 100000) n";
    run(&mut pool.admin, fill).await.expect("jobs");
    run(&mut pool.admin, "VACUUM ANALYZE insula.job").await.expect("analyzed");
    // A session of its own: what one has read is kept for a while after a transaction.
    let mut reader = pool.server.admin(&pool.database).await;
    let mut tx = reader.begin().await.expect("begin");
    let listed = number(&mut tx, "SELECT count(*) FROM insula.job_list(1, 'later', NULL, NULL, 100)").await.expect("a list");
    assert_eq!(listed, 20);
    // Pages of the table and of its indexes, by this session.
    let read = "SELECT (pg_stat_get_xact_blocks_fetched('insula.job'::regclass)
                        + sum(pg_stat_get_xact_blocks_fetched(indexrelid)))::bigint FROM pg_index WHERE indrelid = 'insula.job'::regclass";
    let read = number(&mut tx, read).await.expect("statistics");
    assert!((20..100).contains(&read), "{read} pages were read");
}
