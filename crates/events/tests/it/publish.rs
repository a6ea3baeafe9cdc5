//! Publishing: with its transaction, within bounds, and tidied up.

use insula_core::TenantState;
use insula_events::{BODY_BYTES, Error, publish, publish_all};
use serde_json::json;

use crate::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_exists_exactly_when_its_transaction_committed() {
    let house = House::new(2).await;
    let mut dropped = house.begin(1).await;
    publish(&mut dropped, "order.paid", &json!({ "n": 0 })).await.expect("published");
    dropped.rollback().await;
    assert_eq!(house.count("SELECT count(*) FROM insula.event").await, 0);
    let mut tx = house.begin(1).await;
    let events: Vec<_> = (0..1_200).map(|n| ("order.paid", json!({ "n": n }))).collect();
    let ids = publish_all(&mut tx, &events).await.expect("published");
    assert_eq!(ids.len(), 1_200);
    assert_eq!(house.count("SELECT count(*) FROM insula.event").await, 0, "not yet");
    tx.commit().await.expect("committed");
    let in_order = "SELECT count(*) FROM (SELECT (body ->> 'n')::bigint AS n, row_number() OVER (ORDER BY seq) - 1 AS place FROM insula.event) x WHERE n = place";
    assert_eq!(house.count(in_order).await, 1_200);
    assert_eq!(house.count("SELECT count(*) FROM insula.event WHERE principal = 'Ada, ö' AND tenant_id = 1").await, 1_200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_refused_before_and_by_the_database() {
    let house = House::new(1).await;
    let mut tx = house.begin(1).await;
    for topic in ["", "Order", "order paid", "order.*", "order..paid", "order.>", "ordér", &"x".repeat(101)] {
        assert!(matches!(publish(&mut tx, topic, &json!({})).await, Err(Error::Topic(_))), "{topic}");
    }
    let large = "x".repeat(BODY_BYTES);
    assert!(matches!(publish(&mut tx, "a", &large).await, Err(Error::TooLarge { .. })));
    tx.rollback().await;
    for (call, code) in [
        ("ARRAY['Order'], ARRAY[gen_random_uuid()], ARRAY['{}']", "22023"),
        ("ARRAY[NULL]::text[], ARRAY[gen_random_uuid()], ARRAY['{}']", "22023"),
        ("ARRAY['a', 'b'], ARRAY[gen_random_uuid()], ARRAY['{}']", "22023"),
        ("'{}', '{}', '{}'", "22023"),
        ("NULL, NULL, NULL", "22023"),
        ("ARRAY['a'], ARRAY[gen_random_uuid()], ARRAY[repeat('1', 245761)]", "54000"),
        ("ARRAY['a'], ARRAY[gen_random_uuid()], ARRAY['{']", "22P02"),
    ] {
        let mut tx = house.begin(1).await;
        let sql = sqlx::AssertSqlSafe(format!("SELECT insula.publish({call})"));
        let error = sqlx::query(sql).execute(&mut tx).await.expect_err(call);
        assert_eq!(insula_data::sqlstate(&error).as_deref(), Some(code), "{call}: {error}");
        tx.rollback().await;
    }
    assert_eq!(house.count("SELECT count(*) FROM insula.event").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_and_what_is_long_seen_is_swept() {
    let house = House::new(3).await;
    for no in 1..=3 {
        house.tell(no, "a", no).await;
    }
    house.set_state(3, TenantState::Deleted).await;
    house.run("INSERT INTO insula.event_seen (tenant_id, consumer, id, at, handled) VALUES
        (1, 'c', gen_random_uuid(), now() - interval '13 days', true), (1, 'c', gen_random_uuid(), now() - interval '15 days', true)").await;
    house.run("UPDATE insula.event SET at = now() - interval '2 days' WHERE tenant_id = 1").await;
    // A relay that is at work somewhere keeps what waits, however old.
    house.run("UPDATE insula.outbox SET relayed_at = now()").await;
    assert_eq!(house.count("SELECT insula.sweep_events(0)").await, 1, "the deleted tenant's");
    assert_eq!(house.count("SELECT count(*) FROM insula.event_seen").await, 1);
    assert_eq!(house.count("SELECT count(*) FROM insula.event").await, 2);
    assert_eq!(house.count("SELECT insula.sweep_events(60000)").await, 0, "it was swept a moment ago");
    house.run("UPDATE insula.outbox SET relayed_at = now() - interval '29 days'").await;
    assert_eq!(house.count("SELECT insula.sweep_events(0)").await, 0, "workers that were all stopped lose nothing by it");
    house.run("UPDATE insula.outbox SET relayed_at = '-infinity'").await;
    assert_eq!(house.count("SELECT insula.sweep_events(0)").await, 1, "nobody ever asked, and it is older than a day");
    house.run("UPDATE insula.event SET at = now() - interval '31 days' WHERE tenant_id = 2").await;
    house.run("UPDATE insula.outbox SET relayed_at = now() - interval '31 days'").await;
    house.run("INSERT INTO insula.event (tenant_id, id, topic, at, body) VALUES (1, gen_random_uuid(), 'a', now() - interval '29 days', '1')").await;
    assert_eq!(house.count("SELECT insula.sweep_events(0)").await, 1, "nobody came back for a month");
    assert_eq!(house.count("SELECT tenant_id FROM insula.event").await, 1);
}
