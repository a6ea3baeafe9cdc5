//! Transactions of a tenant that stay open: nobody else's events, webhooks or house-keeping wait for them.

use std::sync::Arc;

use insula_events::webhook::{self, Outcome, Seal, Sender};
use insula_post::{Poster, Reach};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use crate::bus::Book;
use crate::house::{House, keys};

#[tokio::test(flavor = "multi_thread")]
async fn events_of_others_leave_and_house_is_kept_while_a_tenant_s_transaction_is_open() {
    let house = House::new(2).await;
    let handled: Uuid = house.tell(1, "a", 1).await;
    // What both have seen is old enough to be forgotten.
    for no in 1..=2 {
        let mut tx = house.begin(no).await;
        for sql in ["SELECT insula.event_failed('c', $1)", "SELECT insula.event_new('d', $1)"] {
            sqlx::query(sql).bind(handled).execute(&mut tx).await.expect("written down");
        }
        tx.commit().await.expect("committed");
    }
    house.run("UPDATE insula.event_seen SET at = now() - interval '15 days'").await;
    let mut open = house.begin(1).await;
    let again = "SELECT insula.event_failed('c', $1), insula.event_new('c', $1), insula.event_failed('d', $1)";
    sqlx::query(again).bind(handled).execute(&mut open).await.expect("locked");
    let more = "SELECT insula.publish(ARRAY['a'], ARRAY[gen_random_uuid()], ARRAY['{\"n\":3}'])";
    sqlx::query(more).execute(&mut open).await.expect("published");

    let mut admin = house.admin().await;
    sqlx::raw_sql("SET lock_timeout = '2s'").execute(&mut admin).await.expect("set");
    // As workers call it, under the queue's lock.
    let swept: bool =
        sqlx::query_scalar("SELECT insula.sweep_queue(0)").fetch_one(&mut admin).await.expect("nobody is waited for");
    assert!(swept);
    let left = "SELECT count(*) FROM insula.event_seen WHERE tenant_id = ";
    assert_eq!((house.count(&format!("{left}1")).await, house.count(&format!("{left}2")).await), (2, 0));

    let book = Arc::new(Book::default());
    let relay = house.relay(book.clone());
    house.tell(2, "a", 2).await;
    house.empty().await;
    assert_eq!((book.line(house.tenant(1).tenant), book.line(house.tenant(2).tenant)), (vec![1], vec![2]));
    open.commit().await.expect("committed");
    house.empty().await;
    assert_eq!(book.line(house.tenant(1).tenant), [1, 3]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_not_held_up_by_who_has_its_webhook_locked() {
    let house = House::new(1).await;
    let mut tx = house.begin(1).await;
    let seal = Seal { keys: &keys(), cell: &house.server.cell() };
    let (hook, _) = webhook::create(&mut tx, seal, Reach::Private, "http://127.0.0.1:9/", &["*"]).await.expect("created");
    tx.commit().await.expect("committed");
    house.tell(1, "a", 1).await;
    let body = "SELECT body::text FROM insula.job WHERE kind = 'insula.webhook'";
    let body: String = sqlx::query_scalar(body).fetch_one(&mut house.admin().await).await.expect("a job");
    let delivery = serde_json::from_str(&body).expect("a delivery");
    let mut open = house.begin(1).await;
    assert!(webhook::pause(&mut open, hook, false).await.expect("locked"));
    let sender = Sender::new(Poster::new(Reach::Private, None).expect("a poster"), keys);
    let told = sender.deliver(&house.data, &house.tenant(1), &delivery).await.expect("not waited for");
    assert!(matches!(told, Outcome::Again(_)), "nobody listens there: {told:?}");
    assert!(webhook::pause(&mut open, hook, false).await.expect("still open"));
    open.rollback().await;
    let noted = async || house.count(&format!("SELECT failures::bigint FROM insula.webhook WHERE id = '{hook}'")).await;
    assert_eq!(noted().await, 0);
    sender.deliver(&house.data, &house.tenant(1), &delivery).await.expect("noted");
    assert_eq!(noted().await, 1);
}

/// What a tenant may say by SQL, at the edges of what is let in.
const EDGES: [(&str, &str); 7] = [
    ("'a'", "'{\"n\":1,\"x\":\"\\u0000\\ud800\"}'"),
    ("'a'", "'{\"n\":2,\"n\":2}'"),
    ("repeat('a', 100)", "'{\"n\":3}'"),
    ("'-._'", "'{\"n\":4}'"),
    ("'a'", "'{\"n\":5,\"x\":' || repeat('9', 100000) || 'e99999}'"),
    ("'a'", "'{\"n\":6,\"x\":' || repeat('[', 1000) || repeat(']', 1000) || '}'"),
    ("'a'", "'  {\"n\":7,\"x\":\"' || repeat('x', 245000) || '\"}  '"),
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_tenant_s_sql_puts_into_the_outbox_others_events_go_on() {
    let house = House::new(2).await;
    let mut let_in = 0;
    for (topic, body) in EDGES {
        for (principal, trace) in
            [("repeat(E'\\u00f6\\r\\n%', 100)", "repeat(E'\\x01\\n', 500)"), ("''", "E'\\t'"), ("NULL", "NULL")]
        {
            let mut tx = house.begin(1).await;
            let sql =
                format!("SELECT insula.publish(ARRAY[{topic}], ARRAY[gen_random_uuid()], ARRAY[{body}], {principal}, {trace})");
            let put = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut tx).await;
            if put.is_ok_and(|row| row.get::<i64, _>(0) == 1) {
                tx.commit().await.expect("committed");
                let_in += 1;
            } else {
                tx.rollback().await;
            }
        }
    }
    assert!(let_in >= 12, "{let_in}");
    house.tell(2, "a", 100).await;
    let bus = crate::bus::Bus::start();
    let relay = house.relay(Arc::new(bus.nats().await));
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM insula.event WHERE refused IS NOT NULL").await, 0);
    assert_eq!(bus.held("INSULA_EVENTS").await, let_in + 1);
    relay.stop().await;
}
