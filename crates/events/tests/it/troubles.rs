//! Tenants that move, pause and go, and events that are newer than what a process knows.

use std::sync::Arc;
use std::time::Duration;

use insula_catalog::fake;
use insula_core::TenantState;
use insula_events::{Consumer, Relay, RelayConfig, publish};
use serde_json::json;

use crate::bus::{Book, Bus, header, number};
use crate::consumer::{config, consume, note, put, said};
use crate::house::{House, keys, new_database};

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_s_events_wait_and_a_deleted_one_s_are_never_handled() {
    let (house, bus) = (House::new(3).await, Bus::start());
    bus.nats().await.prepare().await.expect("streams");
    let letters: Vec<_> = (1..=3).map(|no| said(&house, no, "a", uuid::Uuid::now_v7(), 1)).collect();
    house.set_state(2, TenantState::Suspended).await;
    house.set_state(3, TenantState::Deleted).await;
    // Many of the suspended one's, more than are asked for at once, stand before the others'.
    let tenant = house.tenant(2).tenant;
    for n in 0..100 {
        let (subject, mut headers) = said(&house, 2, "a", uuid::Uuid::now_v7(), 1);
        assert_eq!(headers[0].1, tenant.to_string());
        headers.push(("X-Number", n.to_string()));
        put(&bus, &subject, &headers, &json!({ "n": 100 + n }).to_string()).await;
    }
    for (place, (subject, headers)) in letters.iter().enumerate() {
        put(&bus, subject, headers, &json!({ "n": place + 1 }).to_string()).await;
    }
    let consumer = consume(&house, &bus, config("mailer", &["*"])).await;
    house.until("the first", "SELECT count(*) = 1 FROM app.done WHERE n = 1").await;
    // The deleted one's is acknowledged: nothing but the suspended one's is pending.
    pending(&bus, "mailer", 101).await;
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 1);
    house.set_state(2, TenantState::Active).await;
    house.until("the resumed one's", "SELECT count(*) = 102 FROM app.done").await;
    pending(&bus, "mailer", 0).await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 3").await, 0);
    consumer.stop().await;
}

/// Waits until so many messages are unacknowledged, and none is undelivered.
async fn pending(bus: &Bus, consumer: &str, count: usize) {
    let context = bus.client().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let stream = context.get_stream("INSULA_EVENTS").await.expect("a stream");
        let info = stream.consumer_info(consumer).await.expect("information");
        if info.num_pending == 0 && info.num_ack_pending == count {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{info:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_newer_than_what_is_known_waits_for_the_catalog() {
    let (house, bus) = (House::new(1).await, Bus::start());
    bus.nats().await.prepare().await.expect("streams");
    let consumer = consume(&house, &bus, config("mailer", &["*"])).await;
    let (subject, headers) = said(&house, 1, "a", uuid::Uuid::now_v7(), 2);
    put(&bus, &subject, &headers, "{\"n\": 1}").await;
    // The database knows before the catalog does.
    let no = house.tenant(1).no;
    insula_kit::set_tenant(&mut house.admin().await, no, 2, TenantState::Active).await.expect("a new epoch");
    pending(&bus, "mailer", 1).await;
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 0);
    // Nobody tells this process: it asks.
    let mut row = house.row(1);
    row.placement.epoch = 2;
    house.source.change_silently(|content| content.put_tenant(row));
    house.until("the event to be handled", "SELECT count(*) = 1 FROM app.done").await;
    // One of before is as good as new.
    let (subject, headers) = said(&house, 1, "a", uuid::Uuid::now_v7(), 1);
    put(&bus, &subject, &headers, "{\"n\": 2}").await;
    house.until("the old one", "SELECT count(*) = 2 FROM app.done").await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_moves_and_each_of_its_events_is_still_handled_once() {
    let (house, bus) = (House::new(2).await, Bus::start());
    let elsewhere = new_database(house.server).await;
    let relay = house.relay(Arc::new(bus.nats().await));
    let consumer = consume(&house, &bus, config("mailer", &["*"])).await;
    let mut told = Vec::new();
    for n in 0..10 {
        told.push(house.tell(1, "a", n).await);
    }
    house.until("the first ten", "SELECT count(*) = 10 FROM app.done WHERE tenant_id = 1").await;
    // It moves: its rows go along, those of the outbox and of what was seen among them.
    let no = house.tenant(1).no;
    let mut here = house.admin().await;
    insula_kit::set_tenant(&mut here, no, 1, TenantState::Suspended).await.expect("frozen");
    let mut there = house.server.admin(&elsewhere).await;
    for table in ["app.done", "insula.event_seen"] {
        let rows: serde_json::Value = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT coalesce(json_agg(t), '[]') FROM {table} t WHERE tenant_id = 1"
        )))
        .fetch_one(&mut here)
        .await
        .expect("rows");
        let insert = format!("INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1::json)");
        sqlx::query(sqlx::AssertSqlSafe(insert)).bind(rows).execute(&mut there).await.expect("copied");
    }
    insula_kit::register_tenant(&mut there, no, 2, None).await.expect("registered");
    insula_kit::remove_tenant(&mut here, no).await.expect("removed");
    let fence = insula_kit::fence(&mut there).await.expect("a fence");
    let mut row = house.row(1);
    row.placement.database = elsewhere.as_str().into();
    row.placement.epoch = 2;
    house.source.change(|content| {
        content.put_database(fake::database("main", &elsewhere, fence).expect("a name"));
        content.put_tenant(row);
    });
    house.catalog.refresh().await.expect("a refresh");
    // Those of before come again, with the epoch of before; one more is published where it lives now.
    for id in &told {
        let (subject, headers) = said(&house, 1, "a", *id, 1);
        put(&bus, &subject, &headers, "{\"n\": -1}").await;
    }
    let mut tx = house.data.begin(&house.tenant(1)).await.expect("it lives elsewhere now");
    publish(&mut tx, "a", &json!({ "n": 10 })).await.expect("published");
    tx.commit().await.expect("committed");
    let late = uuid::Uuid::now_v7();
    let (subject, headers) = said(&house, 1, "a", late, 2);
    put(&bus, &subject, &headers, "{\"n\": 11}").await;
    pending(&bus, "mailer", 0).await;
    let counted: (i64, i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE n < 0) FROM app.done")
            .fetch_one(&mut there)
            .await
            .expect("counts");
    assert_eq!(counted, (11, 11, 0), "the ten that came along, and the late one; no repeat");
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, 10, "nothing more where it lived");
    consumer.stop().await;
    relay.stop().await;
}

/// What a move has to carry of the outbox, and how: in the order of `seq`, which is counted anew where it arrives.
const CARRIED: &str = "INSERT INTO insula.event (tenant_id, id, topic, at, principal, trace, refused, body)
    SELECT tenant_id, id, topic, at, principal, trace, refused, body FROM json_populate_recordset(NULL::insula.event, $1::json) ORDER BY seq";

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_when_its_tenant_moved_goes_out_from_where_it_lives_then_in_its_order_and_once() {
    let (house, mut bus) = (House::new(2).await, Bus::absent());
    let elsewhere = new_database(house.server).await;
    let databases = [&house.database, &elsewhere].map(|database| (house.server.cell(), database.as_str().into()));
    let relay_config =
        RelayConfig { poll: Duration::from_millis(20), databases: Some(databases.to_vec()), ..RelayConfig::default() };
    let relay = Relay::start(Arc::new(bus.nats().await), house.catalog.clone(), keys, relay_config);
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(house.tell(1, "a", n).await.to_string());
        house.tell(2, "a", n).await;
    }
    // The bus is away, so all of it waits. In the other database others have been counted further by now.
    let no = house.tenant(1).no;
    let (mut here, mut there) = (house.admin().await, house.server.admin(&elsewhere).await);
    sqlx::query("SELECT setval('insula.event_seq', 7)").execute(&mut there).await.expect("counted");
    insula_kit::set_tenant(&mut here, no, 1, TenantState::Suspended).await.expect("frozen");
    let rows: serde_json::Value =
        sqlx::query_scalar("SELECT json_agg(e ORDER BY e.id DESC) FROM insula.event e WHERE tenant_id = 1")
            .fetch_one(&mut here)
            .await
            .expect("rows");
    sqlx::query(CARRIED).bind(&rows).execute(&mut there).await.expect("carried");
    insula_kit::register_tenant(&mut there, no, 2, None).await.expect("registered");
    insula_kit::remove_tenant(&mut here, no).await.expect("removed");
    assert_eq!(house.count("SELECT count(*) FROM insula.event WHERE tenant_id = 1").await, 0);
    // A restored backup has brought them back.
    sqlx::query(CARRIED).bind(&rows).execute(&mut here).await.expect("brought back");
    let fence = insula_kit::fence(&mut there).await.expect("a fence");
    let mut row = house.row(1);
    (row.placement.database, row.placement.epoch) = (elsewhere.as_str().into(), 2);
    house.source.change(|content| {
        content.put_database(fake::database("main", &elsewhere, fence).expect("a name"));
        content.put_tenant(row);
    });
    house.catalog.refresh().await.expect("a refresh");
    for n in 30..35 {
        ids.push(house.tell(1, "a", n).await.to_string());
    }
    // What is left where it lived is not its any more, and told to nobody.
    assert_eq!(house.count("SELECT count(*) FROM insula.event WHERE tenant_id = 1").await, 30);
    bus.revive();
    house.until("the other's", "SELECT count(*) = 0 FROM insula.event WHERE tenant_id = 2").await;
    let left = "SELECT count(*) FROM insula.event";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while sqlx::query_scalar::<_, i64>(left).fetch_one(&mut there).await.expect("a count") > 0 {
        assert!(tokio::time::Instant::now() < deadline, "some of it still waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tenant = house.tenant(1).tenant.to_string();
    let messages = bus.read("INSULA_EVENTS", 65).await;
    let told: Vec<_> = messages.iter().filter(|message| header(message, "Insula-Tenant") == tenant).collect();
    assert_eq!(told.iter().map(|message| number(&message.payload)).collect::<Vec<_>>(), (0..35).collect::<Vec<_>>());
    assert_eq!(told.iter().map(|message| header(message, "Insula-Event")).collect::<Vec<_>>(), ids, "by the names that they had");
    assert!(told.iter().all(|message| header(message, "Insula-Epoch") == "2"), "from where it lives");
    assert_eq!(bus.held("INSULA_EVENTS").await, 65, "and nothing twice");
    // When a relay next keeps house where it lived, those are gone.
    house.run("UPDATE insula.outbox SET swept_at = '-infinity'; SELECT insula.sweep_events(0)").await;
    assert_eq!(house.count("SELECT count(*) FROM insula.event WHERE tenant_id = 1").await, 0);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_dies_in_mid_event_leaves_it_to_the_next() {
    let (house, bus) = (House::new(1).await, Bus::start());
    let relay = house.relay(Arc::new(bus.nats().await));
    let began = Arc::new(tokio::sync::Notify::new());
    let first = {
        let began = began.clone();
        let slow = insula_events::ConsumerConfig { timeout: Duration::from_secs(3), ..config("mailer", &["*"]) };
        Consumer::start(bus.nats().await, house.data.clone(), house.catalog.clone(), slow, move |event, tx| {
            let began = began.clone();
            Box::pin(async move {
                note(event, tx).await?;
                began.notify_one();
                std::future::pending().await
            })
        })
        .expect("a consumer")
    };
    house.tell(1, "a", 1).await;
    began.notified().await;
    drop(first);
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 0);
    let quick = insula_events::ConsumerConfig { timeout: Duration::from_secs(3), ..config("mailer", &["*"]) };
    let second = consume(&house, &bus, quick).await;
    house.until("the second to handle it", "SELECT count(*) = 1 FROM app.done").await;
    second.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_in_mid_round_is_served_again() {
    let house = House::new(1).await;
    let book = Arc::new(Book::default());
    let relay = house.relay(book.clone());
    for n in 0..30 {
        if n % 10 == 5 {
            house.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'insula-relay' AND datname = current_database()").await;
        }
        house.tell(1, "a", n).await;
    }
    house.empty().await;
    assert_eq!(book.firsts(house.tenant(1).tenant), (0..30).collect::<Vec<_>>());
    relay.stop().await;
}
