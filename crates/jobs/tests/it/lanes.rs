//! Lanes of a tenant: few, whoever names them, and forgotten when they are idle.

use insula_jobs::{Enqueue, Jobs, send_all};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::house::{House, Note};
use crate::open::{begin, work};

/// Enqueues a job of one tenant to a lane, by SQL.
async fn to_lane(house: &House, no: i64, lane: &str, delay_ms: i64) -> Result<(), (String, String)> {
    let mut tx = house.data.begin(&house.tenant(no)).await.expect("a transaction");
    let sql = "SELECT insula.enqueue('note', ARRAY[gen_random_uuid()], ARRAY['{\"what\":\"x\",\"millis\":0}'], lane => $1, delay_ms => $2)";
    let given = sqlx::query_scalar::<_, i64>(sql).bind(lane).bind(delay_ms).fetch_one(&mut tx).await;
    match given {
        Ok(given) => assert_eq!(given, 1),
        Err(sqlx::Error::Database(error)) => {
            return Err((error.code().map(|code| code.into_owned()).unwrap_or_default(), error.message().to_owned()));
        }
        Err(error) => panic!("not the database's refusal: {error}"),
    }
    tx.commit().await.expect("committed");
    Ok(())
}

/// Time goes by, as lanes and names see it.
async fn hours_later(admin: &mut PgConnection) {
    let sql = "UPDATE insula.lane_name SET seen_at = seen_at - interval '2 hours'; UPDATE insula.lane SET since = since - interval '2 hours'";
    sqlx::raw_sql(sql).execute(admin).await.expect("aged");
}

async fn text(admin: &mut PgConnection, sql: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(admin).await.expect("a text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_s_lanes_are_few_and_one_more_is_refused() {
    let house = House::new(2).await;
    let mut taken = 0;
    for n in 0..200 {
        // Some in a while, which are in no line yet.
        match to_lane(&house, 1, &n.to_string(), n % 2 * 1_500).await {
            Ok(()) => taken += 1,
            Err((code, message)) => {
                assert_eq!(code, "54000");
                assert!(message.contains("at most 128 lanes, and \"1") && message.contains("common one ('')"), "{message}");
            }
        }
    }
    assert_eq!(taken, 128);
    for lane in ["", "5"] {
        to_lane(&house, 1, lane, 0).await.expect("a lane that it has");
    }
    to_lane(&house, 2, "999", 0).await.expect("another's lane");
    let notes: Vec<Note> = (0..100).map(|n| Note::new(&n.to_string(), 0)).collect();
    send_all(&house.data, &house.tenant(2), &notes, &Enqueue::default()).await.expect("sent");
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("the neighbour's jobs", "SELECT count(*) = 101 FROM app.done WHERE tenant_id = 2").await;
    house.until("its own", "SELECT count(*) = 130 FROM app.done WHERE tenant_id = 1").await;
    worker.stop().await;
    assert_eq!(house.count("SELECT count(*) FROM insula.lane WHERE tenant_id = 1").await, 129);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_lanes_are_forgotten_and_come_again() {
    let house = House::new(2).await;
    for lane in ["", "used", "delayed", "idle", "late"] {
        to_lane(&house, 1, lane, 0).await.expect("a lane");
    }
    to_lane(&house, 2, "only", 0).await.expect("a lane");
    let mut admin = house.admin().await;
    let me = begin(&mut admin).await;
    let taken = "SELECT array_agg(id) FROM insula.work($1, '{}', '{}', '{}', 10)";
    let taken: Vec<uuid::Uuid> = sqlx::query_scalar(taken).bind(me).fetch_one(&mut admin).await.expect("jobs");
    assert_eq!(taken.len(), 6);
    let over = "SELECT count(*) FROM insula.work($1, (SELECT array_agg(j.tenant_id) FROM insula.job j), (SELECT array_agg(j.id) FROM insula.job j),
                                                (SELECT array_agg(j.attempt) FROM insula.job j), 10)";
    let more: i64 = sqlx::query_scalar(over).bind(me).fetch_one(&mut admin).await.expect("ended");
    assert_eq!(more, 0);
    let lanes = "SELECT string_agg(tenant_id || ':' || lane, ' ' ORDER BY tenant_id, lane) FROM insula.lane";
    let names = "SELECT string_agg(tenant_id || ':' || lane, ' ' ORDER BY tenant_id, lane) FROM insula.lane_name";
    // Not while they were used of late.
    house.count("SELECT count(insula.sweep_queue(0))").await;
    assert_eq!(text(&mut admin, lanes).await, "1: 1:delayed 1:idle 1:late 1:used 2:only");
    hours_later(&mut admin).await;
    // Nor while something waits in them, or for its time; nor when they were served since.
    to_lane(&house, 1, "delayed", 3_600_000).await.expect("a lane that it has");
    to_lane(&house, 1, "used", 0).await.expect("a lane that it has");
    sqlx::query("UPDATE insula.lane SET since = now() WHERE lane = 'late'").execute(&mut admin).await.expect("served");
    let owed = house.count("SELECT max(start) FROM insula.lane WHERE tenant_id = 2").await;
    assert!(owed > house.count("SELECT present FROM insula.queue").await);
    // A transaction that enqueues while its lane is forgotten.
    let mut open = house.data.begin(&house.tenant(2)).await.expect("a transaction");
    let enqueue = "SELECT insula.enqueue('note', ARRAY[gen_random_uuid()], ARRAY['{}'], lane => 'only')";
    sqlx::query(enqueue).execute(&mut open).await.expect("enqueued");
    house.count("SELECT count(insula.sweep_queue(0))").await;
    assert_eq!(text(&mut admin, lanes).await, "1: 1:delayed 1:late 1:used 2:");
    assert_eq!(text(&mut admin, names).await, "1:delayed 1:late 1:used");
    assert_eq!(house.count("SELECT start FROM insula.lane WHERE tenant_id = 2").await, owed, "it goes on owing");
    open.commit().await.expect("committed");
    to_lane(&house, 1, "idle", 0).await.expect("a lane");
    let came = work(&mut admin, me, &[], 10).await;
    assert_eq!(came.len(), 3);
    assert_eq!(text(&mut admin, names).await, "1:delayed 1:idle 1:late 1:used 2:only");
    assert!(house.count("SELECT start FROM insula.lane WHERE tenant_id = 2 AND lane = 'only'").await > owed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_transactions_name_together_waits_for_a_place() {
    let house = House::new(1).await;
    let one = house.tenant(1);
    let (mut a, mut b) = (house.data.begin(&one).await.expect("one"), house.data.begin(&one).await.expect("two"));
    for (tx, of) in [(&mut a, "a"), (&mut b, "b")] {
        let sql = "SELECT sum(insula.enqueue('note', ARRAY[gen_random_uuid()], ARRAY['{}'], lane => $1 || n))::bigint FROM generate_series(1, 100) n";
        let given: i64 = sqlx::query_scalar(sql).bind(of).fetch_one(tx).await.expect("enqueued");
        assert_eq!(given, 100);
    }
    a.commit().await.expect("committed");
    b.commit().await.expect("committed");
    assert!(to_lane(&house, 1, "c", 0).await.is_err());
    let mut admin = house.admin().await;
    let me = begin(&mut admin).await;
    let first = work(&mut admin, me, &[], 500).await;
    assert_eq!(first.len(), 128);
    assert!(work(&mut admin, me, &first, 500).await.is_empty());
    hours_later(&mut admin).await;
    house.count("SELECT count(insula.sweep_queue(0))").await;
    assert_eq!(work(&mut admin, me, &[], 500).await.len(), 72);
    assert_eq!(house.count("SELECT count(*) FROM insula.lane WHERE lane <> ''").await, 72);
}

/// Also one that somebody is making at that moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_tenant_leaves_no_lane() {
    let house = House::new(2).await;
    for lane in ["", "x"] {
        to_lane(&house, 1, lane, 0).await.expect("a lane");
        to_lane(&house, 2, lane, 0).await.expect("a lane");
    }
    let mut chooser = house.admin().await;
    let me = begin(&mut chooser).await;
    let mut choosing = chooser.begin().await.expect("begin");
    assert_eq!(work(&mut choosing, me, &[], 1).await.len(), 1);
    let (no, mut admin) = (house.tenant(1).no, house.admin().await);
    let removed = tokio::spawn(async move { insula_kit::remove_tenant(&mut admin, no).await });
    house.until_one_waits().await;
    choosing.commit().await.expect("committed");
    removed.await.expect("removed").expect("removed");
    for (table, others) in [("lane", 2), ("lane_name", 1), ("arrival", 0), ("cancellation", 0)] {
        assert_eq!(house.count(&format!("SELECT count(*) FROM insula.{table} WHERE tenant_id = 1")).await, 0, "{table}");
        assert_eq!(house.count(&format!("SELECT count(*) FROM insula.{table} WHERE tenant_id = 2")).await, others, "{table}");
    }
}
