//! Usage arrives once, is added up by the hour, and is told outside.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Timelike as _, Utc};
use insula_api::Client;
use insula_api::usage::{Amounts, UsageBatch, UsageEntry, UsageQuery};
use uuid::Uuid;

use crate::edge_house::EdgeHouse;

fn this_hour() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(0).with_minute(0).unwrap().with_second(0).unwrap()
}

fn entry(tenant_no: i64, hour: DateTime<Utc>, requests: u64) -> UsageEntry {
    UsageEntry { tenant_no, hour, used: Amounts { requests, rows: 2 * requests, ..Amounts::default() } }
}

async fn numbers(house: &mut EdgeHouse) -> Vec<i64> {
    sqlx::query_scalar("SELECT no FROM catalog.tenant ORDER BY slug").fetch_all(&mut house.admin).await.unwrap()
}

#[tokio::test]
async fn a_batch_counts_once_however_often_it_comes() {
    let mut house = EdgeHouse::start().await;
    for slug in ["usage-a", "usage-b"] {
        house.tenant(slug).await;
    }
    let numbers = numbers(&mut house).await;
    let client = Client::new(&format!("http://{}", house.address), &house.key).unwrap();
    let reader = house.reader().await;
    let (now, before) = (this_hour(), this_hour() - TimeDelta::hours(1));
    let (a, b) = (numbers[0], numbers[1]);
    let batch = UsageBatch {
        id: Uuid::now_v7(),
        part: 0,
        entries: vec![entry(a, before, 5), entry(a, now, 7), entry(b, now, 1), entry(a, now, 1)],
    };
    let first = client.add_usage(&batch).await.unwrap();
    assert_eq!((first.repeated, first.unknown), (false, 0));
    // Several senders at once, in other orders, and the same again.
    let mut tasks = tokio::task::JoinSet::new();
    for no in 0..20 {
        let client = Client::new(&format!("http://{}", house.address), &house.key).unwrap();
        let mut entries = vec![entry(a, now, 1), entry(b, now, 1), entry(999_999, now, 1)];
        entries.rotate_left(no % 3);
        let batch = if no < 10 { batch.clone() } else { UsageBatch { id: Uuid::now_v7(), part: 3, entries } };
        tasks.spawn(async move { client.add_usage(&batch).await.unwrap() });
    }
    let receipts = tasks.join_all().await;
    assert_eq!((receipts.iter().filter(|r| r.repeated).count(), receipts.iter().map(|r| r.unknown).sum::<u64>()), (10, 10));

    let query = UsageQuery { from: Some(before), to: None };
    let used = reader.usage("usage-a", &query).await.unwrap();
    let hours: Vec<_> = used.hours.iter().map(|hour| (hour.hour, hour.used.requests, hour.used.rows)).collect();
    assert_eq!(hours, [(before, 5, 10), (now, 18, 36)]);
    assert_eq!((used.total.requests, reader.usage("usage-b", &query).await.unwrap().total.requests), (23, 11));
    let events: Vec<serde_json::Value> =
        sqlx::query_scalar("SELECT payload FROM catalog.outbox WHERE topic = 'usage.recorded' ORDER BY id")
            .fetch_all(&mut house.admin)
            .await
            .unwrap();
    assert_eq!(events.len(), 11);
    assert_eq!((&events[0]["batch"], events[0]["entries"].as_array().unwrap().len()), (&batch.id.to_string().into(), 3));
    assert!(events[0]["entries"][0]["tenant"].is_string() && events[0].to_string().contains("\"requests\":8"), "{}", events[0]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_whole() {
    let mut house = EdgeHouse::start().await;
    house.tenant("usage-c").await;
    let no = numbers(&mut house).await[0];
    let client = Client::new(&format!("http://{}", house.address), &house.key).unwrap();
    let now = this_hour();
    let huge = UsageEntry { used: Amounts { rows: u64::MAX, ..Amounts::default() }, ..entry(no, now, 0) };
    let cases = [
        (vec![entry(no, now + TimeDelta::minutes(1), 1)], "beginning of an hour"),
        (vec![entry(no, now + TimeDelta::hours(3), 1)], "last 35 days"),
        (vec![entry(no, now - TimeDelta::days(36), 1)], "last 35 days"),
        (vec![entry(no, now, 1), huge], "amounts are at most"),
        (vec![entry(no, now, 1); 5_001], "at most 5000"),
    ];
    for (entries, says) in cases {
        let error = client.add_usage(&UsageBatch { id: Uuid::now_v7(), part: 0, entries }).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(house.reader().await.usage("usage-c", &UsageQuery::default()).await.unwrap().hours, []);
}
