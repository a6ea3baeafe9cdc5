//! Databases of single tenants: a few are visited at a time, and those with much to send give their places to others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use insula_catalog::fake;
use insula_core::TenantId;
use insula_events::{Envelope, Relay, RelayConfig, SendError, Sink};
use sqlx::AssertSqlSafe;
use tokio::sync::Notify;

use crate::house::{House, keys, new_database};

/// Visited at once.
const PLACES: i64 = 8;
/// More than are sent while others are there.
const MANY: usize = 2_000;

/// A slow bus, which counts.
#[derive(Default)]
struct Slow {
    got: Mutex<HashMap<TenantId, usize>>,
    came: Notify,
}

impl Sink for Slow {
    fn is_up(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, envelope: &'a Envelope, _: &'a str) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            *self.got.lock().expect("a lock").entry(envelope.tenant).or_default() += 1;
            self.came.notify_one();
            Ok(())
        })
    }
}

impl Slow {
    /// How many came of each, once a condition holds of them.
    async fn until(&self, what: &str, holds: impl Fn(&HashMap<TenantId, usize>) -> bool) -> HashMap<TenantId, usize> {
        let waiting = async {
            loop {
                self.came.notified().await;
                let got = self.got.lock().expect("a lock").clone();
                if holds(&got) {
                    return got;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(40), waiting).await.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_with_much_to_send_do_not_keep_others_from_being_visited() {
    let house = House::new(1).await;
    let template = new_database(house.server).await;
    let mut databases = Vec::new();
    for no in 2..=PLACES + 2 {
        let database = format!("d{no:016x}");
        let mut admin = house.server.admin("postgres").await;
        let sql = format!("CREATE DATABASE {database} TEMPLATE {template}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.expect("a database");
        let mut admin = house.server.admin(&database).await;
        sqlx::query("INSERT INTO insula.tenant (no, epoch) VALUES ($1, 1)").bind(no).execute(&mut admin).await.expect("a tenant");
        let sql = "INSERT INTO insula.event (tenant_id, id, topic, at, body) SELECT $1, gen_random_uuid(), 'a', now(), '1' FROM generate_series(1, $2)";
        let many = if no == PLACES + 2 { 1 } else { i64::try_from(MANY).expect("few") };
        sqlx::query(sql).bind(no).bind(many).execute(&mut admin).await.expect("events");
        databases.push((no, database));
    }
    let cell = house.server.cell();
    let put = |(no, database): &(i64, String)| {
        let mut row = fake::tenant(&format!("t{no}"), *no, "bronze", cell.as_str()).expect("names");
        row.placement.database = database.as_str().into();
        let id = row.id;
        house.source.change(|content| {
            // There is a pool in the cell, so those of single tenants are visited.
            content.put_database(fake::database(cell.as_str(), "insula_pool", 1).expect("a name"));
            content.put_database(fake::database(cell.as_str(), database, 1).expect("a name"));
            content.put_tenant(row);
        });
        id
    };
    let (last, many) = databases.split_last().expect("some");
    let many: Vec<TenantId> = many.iter().map(put).collect();
    house.catalog.refresh().await.expect("a refresh");
    let slow = Arc::new(Slow::default());
    let config = RelayConfig { poll: Duration::from_millis(20), visit: Duration::from_millis(100), ..RelayConfig::default() };
    let relay = Relay::start(slow.clone(), house.catalog.clone(), keys, config);
    slow.until("all places to be taken", |got| many.iter().all(|tenant| got.contains_key(tenant))).await;
    let last = put(last);
    house.catalog.refresh().await.expect("a refresh");
    let got = slow.until("the last one's", |got| got.contains_key(&last)).await;
    assert!(many.iter().all(|tenant| got[tenant] < MANY), "before any of the others was through: {got:?}");
    relay.stop().await;
}
