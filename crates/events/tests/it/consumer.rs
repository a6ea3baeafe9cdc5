//! Consumers: each event once, in its tenant's scope and transaction, wherever the tenant lives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use insula_core::scope;
use insula_data::TenantTx;
use insula_events::{Consumer, ConsumerConfig, Event, EventError};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::bus::{Bus, header};
use crate::house::House;

/// Writes down what it was given, in the tenant's table.
pub(crate) fn note<'t>(event: &'t Event, tx: &'t mut TenantTx) -> BoxFuture<'t, Result<(), EventError>> {
    Box::pin(async move {
        let body: Value = event.json()?;
        assert_eq!(scope::tenant().map(|(id, _)| id), Some(event.envelope.tenant), "in its tenant's scope");
        sqlx::query("INSERT INTO done (id, n) VALUES ($1, $2)")
            .bind(event.envelope.id)
            .bind(body["n"].as_i64())
            .execute(tx)
            .await?;
        Ok(())
    })
}

pub(crate) fn config(name: &str, topics: &[&str]) -> ConsumerConfig {
    ConsumerConfig {
        attempts: 3,
        pause: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        ..ConsumerConfig::new(name, topics)
    }
}

pub(crate) async fn consume(house: &House, bus: &Bus, config: ConsumerConfig) -> Consumer {
    Consumer::start(bus.nats().await, house.data.clone(), house.catalog.clone(), config, note).expect("a consumer")
}

/// Puts a message on the bus as somebody else would.
pub(crate) async fn put(bus: &Bus, subject: &str, headers: &[(&str, String)], body: &str) {
    let context = bus.client().await;
    let mut map = async_nats::HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.as_str());
    }
    let sent = context.publish_with_headers(subject.to_owned(), map, body.to_owned().into()).await.expect("sent");
    sent.await.expect("there is a stream for it");
}

/// The headers of an event, and its subject.
pub(crate) fn said(house: &House, no: i64, topic: &str, id: uuid::Uuid, epoch: i64) -> (String, Vec<(&'static str, String)>) {
    let tenant = house.tenant(no).tenant;
    let headers = vec![
        ("Insula-Tenant", tenant.to_string()),
        ("Insula-Event", id.to_string()),
        ("Insula-Epoch", epoch.to_string()),
        ("Insula-Cell", "main".to_owned()),
        ("Insula-Topic", topic.to_owned()),
        ("Insula-At", "2026-01-02T03:04:05.000006Z".to_owned()),
    ];
    (format!("insula.ev.{tenant}.{topic}"), headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_handled_once_in_order_however_often_it_comes_and_by_however_many() {
    let (house, bus) = (House::new(3).await, Bus::start());
    let relay = house.relay(Arc::new(bus.nats().await));
    // Two processes of one consumer, and another consumer.
    let consumers = [
        consume(&house, &bus, config("mailer", &["document.*"])).await,
        consume(&house, &bus, config("mailer", &["document.*"])).await,
    ];
    let mut ids = Vec::new();
    for n in 0..90 {
        ids.push((1 + n % 3, house.tell(1 + n % 3, if n % 9 == 8 { "other" } else { "document.created" }, n).await));
    }
    house.until("all to be handled", "SELECT count(*) = 80 FROM app.done").await;
    // Again, under names that the server does not know as repeats: as after two minutes, or from a relay that died.
    for (no, id) in &ids {
        let (subject, headers) = said(&house, *no, "document.created", *id, 1);
        put(&bus, &subject, &headers, "{\"n\": -1}").await;
    }
    house.tell(1, "document.last", 1_000).await;
    house.until("the last to be handled", "SELECT count(*) = 1 FROM app.done WHERE n = 1000").await;
    house.until("the rest", "SELECT count(*) = 91 FROM app.done").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE n = -1").await, 10, "only those that had not been wanted");
    assert_eq!(house.count("SELECT count(DISTINCT (tenant_id, id)) FROM app.done").await, 91);
    let another = consume(&house, &bus, config("auditor", &["other", "document.last"])).await;
    house.until("the other consumer", "SELECT count(*) = 91 + 11 FROM app.done").await;
    for consumer in consumers.into_iter().chain([another]) {
        consumer.stop().await;
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_tenant_or_cannot_be_read_is_a_dead_letter_and_never_handled() {
    let (house, bus) = (House::new(2).await, Bus::start());
    let nats = bus.nats().await;
    nats.prepare().await.expect("streams");
    let consumer = consume(&house, &bus, config("mailer", &["*"])).await;
    let (subject, good) = said(&house, 1, "a", uuid::Uuid::now_v7(), 1);
    let without = |name: &str| good.iter().filter(|(n, _)| *n != name).cloned().collect::<Vec<_>>();
    let with = |name: &'static str, value: &str| [without(name), vec![(name, value.to_owned())]].concat();
    let other = house.tenant(2).tenant.to_string();
    let bad = [
        ("it has no tenant", without("Insula-Tenant"), "{}"),
        ("the header Insula-Event is missing", without("Insula-Event"), "{}"),
        (
            "the header Insula-Tenant is there more than once",
            [good.clone(), vec![("Insula-Tenant", other.clone())]].concat(),
            "{}",
        ),
        ("the header Insula-Tenant cannot be read", with("Insula-Tenant", "acme"), "{}"),
        ("the header Insula-Epoch cannot be read", with("Insula-Epoch", "-1"), "{}"),
        ("its headers and its address do not agree", with("Insula-Tenant", &other), "{}"),
        ("its body is not JSON", good.clone(), "{"),
        ("it has no tenant", Vec::new(), ""),
    ];
    for (_, headers, body) in &bad {
        put(&bus, &subject, headers, body).await;
    }
    let dead = bus.read("INSULA_DEAD", bad.len()).await;
    for (reason, headers, body) in &bad {
        let found = dead.iter().any(|letter| {
            let theirs = headers.iter().all(|(name, value)| {
                let values = letter.headers.iter().flat_map(|headers| headers.get_all(*name)).map(|v| v.as_str().to_owned());
                values.collect::<Vec<_>>().contains(value)
            });
            header(letter, "Insula-Reason").starts_with(reason) && theirs && letter.payload == body.as_bytes()
        });
        assert!(found, "{reason}");
    }
    for letter in &dead {
        assert_eq!((letter.subject.as_str(), header(letter, "Insula-Consumer").as_str()), ("insula.dead.mailer", "mailer"));
        assert_eq!(header(letter, "Insula-Subject"), subject);
    }
    // The good one goes on.
    put(&bus, &subject, &good, "{\"n\": 7}").await;
    house.until("the good one", "SELECT count(*) = 1 FROM app.done WHERE n = 7").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 1);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_tried_again_and_rolled_back_and_ends_as_a_dead_letter() {
    let (house, bus) = (House::new(1).await, Bus::start());
    let relay = house.relay(Arc::new(bus.nats().await));
    let calls: Arc<[AtomicUsize; 5]> = Arc::default();
    let counted = calls.clone();
    let patient = ConsumerConfig { timeout: Duration::from_secs(2), ..config("mailer", &["*"]) };
    let consumer = Consumer::start(bus.nats().await, house.data.clone(), house.catalog.clone(), patient, move |event, tx| {
        let calls = counted.clone();
        Box::pin(async move {
            note(event, tx).await?;
            let n = event.json::<Value>()?["n"].as_i64().unwrap_or_default();
            let call = calls[usize::try_from(n).unwrap_or_default()].fetch_add(1, Ordering::SeqCst);
            match n {
                1 if call < 2 => Err(EventError::Retry("not yet".to_owned())),
                2 => panic!("in a handler"),
                3 => Err(EventError::Dead("of no use".to_owned())),
                4 => std::future::pending().await,
                _ => Ok(()),
            }
        })
    });
    let consumer = consumer.expect("a consumer");
    for n in 0..5 {
        house.tell(1, "a", n).await;
    }
    let dead = bus.read("INSULA_DEAD", 3).await;
    let reasons: Vec<_> = dead.iter().map(|letter| header(letter, "Insula-Reason")).collect();
    for reason in ["of no use", "its handler panicked", "it took longer than 2s"] {
        assert!(reasons.iter().any(|r| r == reason), "{reason}: {reasons:?}");
    }
    house.until("those that went well", "SELECT count(*) = 2 FROM app.done").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE n IN (0, 1)").await, 2, "what failed left nothing behind");
    let calls: Vec<_> = calls.iter().map(|call| call.load(Ordering::SeqCst)).collect();
    assert_eq!(calls, [1, 3, 3, 1, 3]);
    consumer.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_s_slow_events_are_one_at_a_time_and_keep_nobody_else_waiting() {
    let (house, bus) = (House::new(3).await, Bus::start());
    let relay = house.relay(Arc::new(bus.nats().await));
    let at_work = Arc::new(Mutex::new(std::collections::HashSet::new()));
    // Each of the first tenant's waits here for leave to go on.
    let gate = Arc::new(Semaphore::new(0));
    let consumer = {
        let (at_work, gate) = (at_work.clone(), gate.clone());
        let config = ConsumerConfig { concurrency: 2, timeout: Duration::from_secs(60), ..config("slow", &["*"]) };
        Consumer::start(bus.nats().await, house.data.clone(), house.catalog.clone(), config, move |event, tx| {
            let (at_work, gate) = (at_work.clone(), gate.clone());
            Box::pin(async move {
                assert!(at_work.lock().expect("a lock").insert(event.envelope.tenant), "two of one tenant at once");
                if event.tenant.slug.as_str() == "t1" {
                    gate.acquire().await.expect("open").forget();
                }
                let noted = note(event, tx).await;
                at_work.lock().expect("a lock").remove(&event.envelope.tenant);
                noted
            })
        })
        .expect("a consumer")
    };
    // As many as are fetched ahead keep nobody waiting at all; with more, the others' come long before the last of them.
    for (from, to, most) in [(0, 10, 0), (10, 30, 14)] {
        for n in from..to {
            house.tell(1, "a", n).await;
        }
        for n in 0..5 {
            house.tell(2, "a", n + from / 2).await;
            house.tell(3, "a", n + from / 2).await;
        }
        let others = format!("SELECT count(*) = {} FROM app.done WHERE tenant_id > 1", from + 10);
        for gone_on in from..from + most {
            gate.add_permits(1);
            house.until("the next", &format!("SELECT count(*) > {gone_on} FROM app.done WHERE tenant_id = 1")).await;
        }
        house.until("the others' to be done", &others).await;
        assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, from + most);
        gate.add_permits(usize::try_from(to - from - most).expect("some are left"));
        house.until("all", &format!("SELECT count(*) = {} FROM app.done", to + from + 10)).await;
    }
    let in_order = "SELECT count(*) FROM (SELECT n, row_number() OVER (PARTITION BY tenant_id ORDER BY at) - 1 AS place FROM app.done) x WHERE n = place";
    assert_eq!(house.count(in_order).await, 50);
    consumer.stop().await;
    relay.stop().await;
}
