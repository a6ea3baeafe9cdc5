//! From the outbox to NATS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use insula_core::TenantState;
use insula_events::publish;
use serde_json::json;

use crate::bus::{Book, Bus, header, number};
use crate::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_nats_in_the_order_of_their_tenant_with_their_headers() {
    let (house, bus) = (Arc::new(House::new(3).await), Bus::start());
    let relay = house.relay(Arc::new(bus.nats().await));
    let mut tellers = tokio::task::JoinSet::new();
    for no in 1..=3 {
        let house = house.clone();
        tellers.spawn(async move {
            for n in 0..60 {
                house.tell(no, if n % 2 == 0 { "document.created" } else { "document.deleted" }, n).await;
            }
        });
    }
    tellers.join_all().await;
    house.empty().await;
    let messages = bus.read("INSULA_EVENTS", 180).await;
    let mut lines: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for message in &messages {
        let tenant = header(message, "Insula-Tenant");
        lines.entry(tenant.clone()).or_default().push(number(&message.payload));
        assert_eq!(message.subject.as_str(), format!("insula.ev.{tenant}.{}", header(message, "Insula-Topic")));
        assert_eq!(header(message, "Nats-Msg-Id"), format!("{tenant}.{}", header(message, "Insula-Event")));
        assert_eq!((header(message, "Insula-Epoch").as_str(), header(message, "Insula-Cell").as_str()), ("1", "main"));
        assert_eq!(header(message, "Insula-Principal"), "Ada,%20%C3%B6");
        assert!(header(message, "Insula-At").starts_with("20"));
        ids.insert(header(message, "Insula-Event"));
    }
    for no in 1..=3 {
        assert_eq!(lines[&house.tenant(no).tenant.to_string()], (0..60).collect::<Vec<_>>(), "tenant {no}");
    }
    assert_eq!((ids.len(), bus.held("INSULA_EVENTS").await), (180, 180));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_commits_later_is_told_later_and_what_is_rolled_back_never() {
    let house = House::new(1).await;
    let book = Arc::new(Book::default());
    let relay = house.relay(book.clone());
    let (mut early, mut never) = (house.begin(1).await, house.begin(1).await);
    publish(&mut early, "a", &json!({ "n": 1 })).await.expect("published");
    publish(&mut never, "a", &json!({ "n": 666 })).await.expect("published");
    house.tell(1, "a", 2).await;
    house.empty().await;
    assert_eq!(book.line(house.tenant(1).tenant), [2], "it came first, by its commit");
    early.commit().await.expect("committed");
    never.rollback().await;
    house.tell(1, "a", 3).await;
    house.empty().await;
    assert_eq!(book.line(house.tenant(1).tenant), [2, 1, 3]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_away_or_killed_loses_nothing_and_keeps_the_order() {
    let (house, mut bus) = (House::new(2).await, Bus::absent());
    let relay = house.relay(Arc::new(bus.nats().await));
    for n in 0..20 {
        house.tell(1 + n % 2, "a", n).await;
    }
    assert_eq!(house.count("SELECT count(*) FROM insula.event").await, 20, "they wait");
    bus.revive();
    house.empty().await;
    for n in 20..200 {
        if n % 60 == 0 {
            // In the middle of it.
            bus.kill();
        }
        house.tell(1 + n % 2, "a", n).await;
        if n % 60 == 20 {
            bus.revive();
        }
    }
    if !bus.runs() {
        bus.revive();
    }
    house.empty().await;
    let held = usize::try_from(bus.held("INSULA_EVENTS").await).expect("few");
    let mut lines: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for message in bus.read("INSULA_EVENTS", held).await {
        let line = lines.entry(header(&message, "Insula-Tenant")).or_default();
        let n = number(&message.payload);
        // At least once: a repeat is not new.
        if !line.contains(&n) {
            line.push(n);
        }
    }
    for no in 0..2 {
        assert_eq!(lines[&house.tenant(no + 1).tenant.to_string()], (no..200).step_by(2).collect::<Vec<_>>());
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_relays_one_is_at_work_and_killed_ones_leave_nothing_behind() {
    let house = Arc::new(House::new(4).await);
    let book = Book::failing(7);
    let teller = {
        let house = house.clone();
        tokio::spawn(async move {
            for n in 0..400 {
                house.tell(1 + n % 4, "a", n).await;
            }
        })
    };
    let mut relays: Vec<_> = (0..3).map(|_| house.relay(book.clone())).collect();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        // Dropped in mid-round, as a killed process.
        drop(relays.remove(0));
        relays.push(house.relay(book.clone()));
    }
    teller.await.expect("told");
    house.empty().await;
    for no in 1..=4 {
        let firsts = book.firsts(house.tenant(no).tenant);
        assert_eq!(firsts, (no - 1..400).step_by(4).collect::<Vec<_>>(), "all of tenant {no}, in their order");
    }
    for relay in relays {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bus_never_takes_is_set_aside_and_those_behind_it_go_on() {
    let (house, bus) = (House::new(2).await, Bus::with("max_payload: 16384"));
    let mut tx = house.begin(1).await;
    publish(&mut tx, "a", &json!({ "n": 1, "much": "x".repeat(20_000) })).await.expect("published");
    publish(&mut tx, "a", &json!({ "n": 2 })).await.expect("published");
    tx.commit().await.expect("committed");
    let relay = house.relay(Arc::new(bus.nats().await));
    house.empty().await;
    let messages = bus.read("INSULA_EVENTS", 1).await;
    assert_eq!(number(&messages[0].payload), 2);
    assert_eq!(house.count("SELECT count(*) FROM insula.event WHERE refused LIKE 'its body has % bytes%'").await, 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_s_events_are_told_an_unknown_one_s_wait_and_hold_up_nobody() {
    let house = House::new(3).await;
    for no in 1..=3 {
        house.tell(no, "a", no).await;
    }
    house.set_state(2, TenantState::Suspended).await;
    let unknown = house.row(3);
    house.source.change(|content| content.remove_tenant(unknown.id));
    house.catalog.refresh().await.expect("a refresh");
    let book = Arc::new(Book::default());
    let relay = house.relay(book.clone());
    house.until("two to be told", "SELECT count(*) = 1 FROM insula.event").await;
    assert_eq!((book.line(house.tenant(1).tenant), book.line(house.tenant(2).tenant)), (vec![1], vec![2]));
    let id = unknown.id;
    house.source.change(|content| content.put_tenant(unknown));
    house.empty().await;
    assert_eq!(book.line(id), [3]);
    relay.stop().await;
}
