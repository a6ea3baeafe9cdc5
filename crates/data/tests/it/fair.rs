//! Connections are shared: caps hold, a noisy tenant does not starve a quiet one, idle connections make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use insula_core::Kind;
use insula_data::{DataConfig, Error};

use crate::house::{House, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_holds_no_more_than_its_plan_allows_and_is_told_so() {
    let house = House::new().await;
    let mut plan = insula_catalog::fake::plan("small").expect("a name");
    (plan.limits.max_connections, plan.limits.acquire_timeout_ms) = (2, 50);
    house.source.change(|c| c.put_plan(plan));
    let small = house.register(4, "small").await;
    let _held = (house.begin(4).await, house.begin(4).await);
    let refused = house.data.begin(&small).await.expect_err("a third");
    assert!(matches!(refused, Error::TenantBusy { max: 2, .. }));
    assert_eq!((refused.kind(), refused.retry_after().is_some()), (Kind::Limited, true));
    house.begin(1).await;
}

/// Nobody shares its pool: that it is used up is its own affair, and no reason to send the application less.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_has_used_up_its_own_pool_is_told_that_it_is_its_own() {
    let house = House::with(DataConfig { dedicated_connections: 1, ..DataConfig::default() }).await;
    house.register_dedicated(11).await;
    let alone = house.tenant(11);
    let held = house.begin(11).await;
    let refused = house.data.begin(&alone).await.expect_err("a second");
    assert!(matches!(refused, Error::TenantBusy { max: 1, .. }), "{refused}");
    held.commit().await.expect("a commit");
    house.begin(11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_noisy_tenant_does_not_starve_a_quiet_one() {
    let house = House::with(DataConfig { pool_connections: 4, ..DataConfig::default() }).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut noise = Vec::new();
    for _ in 0..100 {
        let (data, noisy, stop, done) = (house.data.clone(), house.tenant(1), stop.clone(), done.clone());
        noise.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                if let Ok(mut tx) = data.begin(&noisy).await {
                    sqlx::query("SELECT count(*) FROM generate_series(1, 30000)").execute(&mut tx).await.expect("a count");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    until("the noise to be loud", || async { done.load(Ordering::Relaxed) > 50 }).await;
    let before = done.load(Ordering::Relaxed);
    let mut waits = Vec::new();
    for _ in 0..30 {
        let start = Instant::now();
        house.begin(2).await.commit().await.expect("a commit");
        waits.push(start.elapsed());
    }
    let during = done.load(Ordering::Relaxed) - before;
    stop.store(true, Ordering::Relaxed);
    for task in noise {
        task.await.expect("no panic");
    }
    // In line behind the 96 that wait it would see about 96 of the noisy tenant's transactions pass for each of its own.
    assert!(during < 30 * 20, "{during} noisy transactions passed 30 quiet ones, which waited {waits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_s_cap_holds_and_idle_connections_of_other_pools_make_room() {
    let house = House::with(DataConfig { max_connections: 2, ..DataConfig::default() }).await;
    for no in [11, 12, 13] {
        house.register_dedicated(no).await;
    }
    let databases = [1, 11, 12, 13].map(|no| house.row(no).placement.database.to_string());
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename <> 'insula_admin' AND datname = ANY($1)";
    for (id, no) in (1..).zip([1, 11, 12, 13, 1, 13, 12, 11]) {
        house.add(no, id, "x").await;
        // A backend ends a moment after its connection.
        until("two connections at most", || async {
            let mut admin = house.server.admin("postgres").await;
            let open: i64 = sqlx::query_scalar(count).bind(&databases[..]).fetch_one(&mut admin).await.expect("a count");
            open <= 2
        })
        .await;
    }
    let mut held = house.begin(11).await;
    sqlx::query("SELECT 1").execute(&mut held).await.expect("a row");
    house.begin(12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_after_their_time() {
    let short = Duration::from_millis(100);
    let config = DataConfig { idle_timeout: short, dedicated_idle_timeout: short, ..DataConfig::default() };
    let house = House::with(config).await;
    let held = house.begin(1).await;
    assert_eq!(house.backends(None).await, 1);
    held.commit().await.expect("a commit");
    until("the connection to be closed", || async { house.backends(None).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_at_once() {
    let config = DataConfig { pool_connections: 1, queue: 2, queue_per_tenant: 1, ..DataConfig::default() };
    let house = House::with(config).await;
    let held = house.begin(1).await;
    let one = house.tenant(1);
    let mut waiting = Box::pin(house.data.begin(&one));
    assert!((&mut waiting).now_or_never().is_none(), "in line");
    let refused = house.data.begin(&one).now_or_never().expect("an answer at once").expect_err("a full line");
    assert!(matches!(refused, Error::TenantBusy { .. }));
    held.commit().await.expect("a commit");
    waiting.await.expect("its turn came");
}
