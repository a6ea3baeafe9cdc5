//! The fast lane: bound in the same breath, or not run at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use insula_core::{Clock, KeyRing, Kind, TenantState};
use insula_data::lane::{Call, Param};
use insula_data::{Data, DataConfig, Error};

use crate::house::{House, no, until};

const INSERT: &str = "INSERT INTO documents (id, body) VALUES ($1, $2)";
const READ: &str = "SELECT body FROM documents WHERE id = $1";

async fn read(house: &House, no: i64, id: i64) -> Vec<String> {
    let rows = house.data.lane().query(&house.tenant(no), READ, &[Param::Int8(id)]).await.expect("rows");
    rows.iter().map(|row| row.get(0).expect("text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_transactions_of_one_tenant() {
    let house = House::new().await;
    house.register_dedicated(9).await;
    let lane = house.data.lane();
    for no in [1, 2, 9] {
        let body = format!("of {no}");
        let params = [Param::Int8(5), Param::Text(&body)];
        lane.query(&house.tenant(no), INSERT, &params).await.expect("an insert");
    }
    for no in [1, 2, 9, 1, 1] {
        assert_eq!(read(&house, no, 5).await, [format!("of {no}")]);
        assert_eq!(house.bodies(no).await, [format!("of {no}")]);
    }
    // All or none.
    let (six, five) = ([Param::Int8(6), Param::Text("x")], [Param::Int8(5), Param::Text("again")]);
    let calls = [Call { sql: INSERT, params: &six }, Call { sql: INSERT, params: &five }];
    let refused = lane.batch(&house.tenant(1), &calls).await.expect_err("a duplicate");
    assert_eq!(refused.kind(), Kind::Conflict);
    assert!(read(&house, 1, 6).await.is_empty());
}

/// A clock far in the past: its grants have expired.
struct Stopped(AtomicI64);

impl Clock for Stopped {
    fn unix_seconds(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_behind_a_refused_grant() {
    let house = House::new().await;
    let keys = KeyRing::new([(house.server.cell(), house.server.cell_key())]);
    let clock = Arc::new(Stopped(AtomicI64::new(1_000_000)));
    let late = Data::open_with_clock(DataConfig::default(), house.catalog.clone(), keys, clock.clone());
    let (insert, fortunate) = ([Param::Int8(5), Param::Text("x")], "SELECT pg_advisory_xact_lock_shared(1)");
    for calls in [
        &[Call { sql: INSERT, params: &insert }][..],
        // Were it run unbound it would be refused for another reason, or not at all.
        &[Call { sql: "SELECT 1", params: &[] }, Call { sql: fortunate, params: &[] }],
    ] {
        let refused = late.lane().batch(&house.tenant(1), calls).await.expect_err("an expired grant");
        assert!(matches!(&refused, Error::GrantRefused(why) if why.contains("expired")), "{refused:?}");
    }
    assert!(house.bodies(1).await.is_empty());
    // The same wire, with the clock put right, goes on.
    clock.0.store(insula_core::SystemClock.unix_seconds(), Ordering::Relaxed);
    let rows = late.lane().query(&house.tenant(1), "SELECT 1", &[]).await.expect("a row");
    assert_eq!(rows[0].get::<i32>(0), Ok(1));
    assert_eq!(house.backends(None).await, 2, "one wire and one connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_routes_suspensions_and_restarts_are_handled_as_for_transactions() {
    let house = House::new().await;
    let lane = house.data.lane();
    lane.query(&house.tenant(1), INSERT, &[Param::Int8(1), Param::Text("kept")]).await.expect("an insert");
    insula_kit::set_tenant(&mut house.admin().await, no(1), 2, TenantState::Active).await.expect("a new epoch");
    let mut row = house.row(1);
    row.placement.epoch = 2;
    house.source.change_silently(|c| c.put_tenant(row));
    assert_eq!(read(&house, 1, 1).await, ["kept"]);
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename <> 'insula_admin'";
    let mut admin = house.server.admin("postgres").await;
    sqlx::query(kill).bind(&house.database).execute(&mut admin).await.expect("killed");
    until("the backends to be gone", || async { house.backends(None).await == 0 }).await;
    // Until it has arrived, what is sent may be lost.
    until("the farewell to arrive", || async { lane.query(&house.tenant(1), READ, &[Param::Int8(1)]).await.is_ok() }).await;
    assert_eq!(read(&house, 1, 1).await, ["kept"]);
    insula_kit::set_tenant(&mut house.admin().await, no(1), 2, TenantState::Suspended).await.expect("suspended");
    let refused = lane.query(&house.tenant(1), "SELECT 1", &[]).await.expect_err("suspended");
    assert_eq!(refused.kind(), Kind::Suspended);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_and_the_types_are_checked_before_anything_is_sent() {
    let house = House::new().await;
    let lane = house.data.lane();
    for sql in ["COMMIT", "SET role TO none", "COPY documents TO STDOUT", "BEGIN"] {
        let refused = lane.query(&house.tenant(1), sql, &[]).await.expect_err(sql);
        assert_eq!(refused.kind(), Kind::Security);
    }
    let two = lane.query(&house.tenant(1), "SELECT 1; COMMIT", &[]).await.expect_err("two statements");
    assert_eq!(two.sqlstate().as_deref(), Some("42601"));
    lane.query(&house.tenant(1), READ, &[Param::Int8(1)]).await.expect("no rows");
    lane.query(&house.tenant(1), READ, &[Param::Text("1")]).await.expect_err("another type");
    lane.query(&house.tenant(1), READ, &[Param::Null]).await.expect("NULL fits everywhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelled_batches_leave_nothing_and_no_row_crosses() {
    let house = House::with(DataConfig { pool_connections: 4, ..DataConfig::default() }).await;
    for no in 1..=3 {
        house.add(no, 1, &format!("of {no}")).await;
    }
    let mut tasks = Vec::new();
    for worker in 0..8_i64 {
        let (lane, contexts) = (house.data.lane(), [1, 2, 3].map(|no| house.tenant(no)));
        tasks.push(tokio::spawn(async move {
            for round in 0..300_i64 {
                let context = &contexts[usize::try_from((worker + round) % 3).expect("small")];
                let work = lane.query(context, READ, &[Param::Int8(1)]);
                let patience =
                    std::time::Duration::from_micros(u64::try_from((worker * 37 + round * 13) % 1_500).expect("small"));
                if let Ok(Ok(rows)) = tokio::time::timeout(patience, work).await {
                    assert_eq!(rows[0].get::<&str>(0), Ok(format!("of {}", context.no).as_str()));
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("no row crossed");
    }
    until("the rest to end", || async { house.backends(Some("active")).await == 0 && house.backends(None).await <= 4 }).await;
}
