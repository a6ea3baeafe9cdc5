//! A wrong route is harmless: the database refuses, the route is refreshed, the work goes on or gets a clear answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use insula_core::{Kind, TenantState};
use insula_data::Error;

use crate::house::{House, no};

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_epoch_refreshes_the_route_and_goes_on() {
    let house = House::new().await;
    house.add(1, 1, "kept").await;
    insula_kit::set_tenant(&mut house.admin().await, no(1), 2, TenantState::Active).await.expect("a new epoch");
    let mut row = house.row(1);
    row.placement.epoch = 2;
    // Nobody is told: the refresh must find it.
    house.source.change_silently(|c| c.put_tenant(row));
    assert_eq!(house.bodies(1).await, ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_stays_stale_is_an_answer_not_a_loop() {
    let house = House::new().await;
    insula_kit::set_tenant(&mut house.admin().await, no(1), 2, TenantState::Active).await.expect("a new epoch");
    let refused = house.data.begin(&house.tenant(1)).await.expect_err("an old epoch");
    assert!(matches!(refused, Error::Moved(_)));
    assert_eq!(refused.kind(), Kind::Moved);
    house.begin(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspension_is_seen_by_the_database_before_the_catalog_says_so() {
    let house = House::new().await;
    insula_kit::set_tenant(&mut house.admin().await, no(1), 1, TenantState::Suspended).await.expect("a suspension");
    let refused = house.data.begin(&house.tenant(1)).await.expect_err("suspended");
    assert_eq!(refused.kind(), Kind::Suspended);
    let mut row = house.row(1);
    row.state = TenantState::Suspended;
    let context = house.tenant(1);
    house.publish(row).await;
    assert_eq!(house.data.begin(&context).await.expect_err("suspended").kind(), Kind::Suspended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_waits_for_the_transaction_at_hand() {
    let house = House::new().await;
    let mut tx = house.begin(1).await;
    sqlx::query("INSERT INTO documents (id) VALUES (1)").execute(&mut tx).await.expect("a row");
    let mut admin = house.admin().await;
    let suspended =
        tokio::spawn(async move { insula_kit::set_tenant(&mut admin, no(1), 1, TenantState::Suspended).await.map(|_| ()) });
    tx.commit().await.expect("it was there first");
    suspended.await.expect("no panic").expect("a suspension");
    assert_eq!(house.data.begin(&house.tenant(1)).await.expect_err("suspended").kind(), Kind::Suspended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_login_ends_its_sessions_and_its_tenant_is_refused() {
    let house = House::new().await;
    let context = house.register_dedicated(9).await;
    house.add(9, 1, "kept").await;
    let row = house.row(9);
    let (role, mut admin) = (row.placement.role(), house.server.admin(&row.placement.database).await);
    insula_kit::disable_login(&mut admin, &role).await.expect("disabled");
    let mut suspended = house.row(9);
    suspended.state = TenantState::Suspended;
    house.source.change_silently(|c| c.put_tenant(suspended));
    assert_eq!(house.data.begin(&context).await.expect_err("no login").kind(), Kind::Suspended);
    insula_kit::enable_login(&mut admin, &role).await.expect("enabled");
    house.publish(row).await;
    assert_eq!(house.bodies(9).await, ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_tenant_is_nobody() {
    let house = House::new().await;
    let mut context = house.tenant(1);
    context.tenant = insula_core::TenantId::new();
    assert_eq!(house.data.begin(&context).await.expect_err("unknown").kind(), Kind::NoTenant);
}

#[tokio::test]
async fn who_is_refused_and_asks_again_at_once_leaves_others_their_turn() {
    let house = House::new().await;
    let mut nobody = house.tenant(1);
    nobody.tenant = insula_core::TenantId::new();
    // On one thread, and none of the ways in ever waits.
    for way in 0..3 {
        let turn = Arc::new(AtomicBool::new(false));
        let other = turn.clone();
        tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
        let mut asked = 0;
        while !turn.load(Ordering::Relaxed) {
            let kind = match way {
                0 => house.data.begin(&nobody).await.map(drop),
                1 => house.data.begin_read(&nobody).await.map(drop),
                _ => house.data.lane().query(&nobody, "SELECT 1", &[]).await.map(drop),
            };
            assert_eq!(kind.expect_err("unknown").kind(), Kind::NoTenant);
            asked += 1;
            assert!(asked < 100_000, "others never run");
        }
    }
}
