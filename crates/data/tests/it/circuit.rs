//! What is dead fails at once and alone: one tenant's database, one tenant's login.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use insula_catalog::fake;
use insula_core::{KeyRing, Kind, TenantContext};
use insula_data::{DataConfig, Error};

use crate::house::{House, until};

/// Begins until the circuit is open; answers how many times the database was asked before.
async fn trip(house: &House, who: &TenantContext) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(60);
    for asked in 0.. {
        match house.data.begin(who).await {
            Err(Error::CircuitOpen { .. }) => return asked,
            Err(_) => {}
            Ok(_) => panic!("it answers"),
        }
        assert!(Instant::now() < deadline, "the circuit never opens");
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dead_database_is_one_tenant_s_trouble() {
    let config = DataConfig { connect_timeout: Duration::from_secs(2), max_connections: 6, attempts: 1, ..DataConfig::default() };
    let house = House::with(config).await;
    // It takes connections and never says a word.
    let hole = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gold = house.register_dedicated(4).await;
    let dead = "dead".parse().expect("a name");
    house.data.replace_keys(KeyRing::new([(house.server.cell(), house.server.cell_key()), (dead, house.server.cell_key())]));
    let mut row = house.row(4);
    row.placement.cell = "dead".parse().expect("a name");
    house.source.change(|c| {
        c.put_cell(fake::cell("dead", "127.0.0.1", hole.local_addr().expect("an address").port()).expect("a name"));
        c.put_database(fake::database("dead", &row.placement.database, 0).expect("a name"));
    });
    house.publish(row).await;

    // Many at once, as users are.
    let storm: Vec<_> = (0..40)
        .map(|_| {
            let (data, gold) = (house.data.clone(), gold.clone());
            tokio::spawn(async move { data.begin(&gold).await.map(drop).expect_err("a dead database").kind() })
        })
        .collect();
    for _ in 0..20 {
        house.begin(1).await.commit().await.expect("a commit");
    }
    for one in storm {
        assert!(matches!(one.await.expect("no panic"), Kind::Unavailable | Kind::Limited));
    }
    trip(&house, &gold).await;
    // Open: an answer at once, no connection's place held, and when to come back.
    let (mut refused, mut took) = (Vec::new(), Duration::ZERO);
    while refused.len() < 1_000 {
        let began = Instant::now();
        // Now and then one is the probe, which takes as long as a connection may.
        if let Err(error @ Error::CircuitOpen { .. }) = house.data.begin(&gold).await {
            refused.push(error);
            took += began.elapsed();
        }
    }
    // None of them waited for a connection: that takes two seconds each.
    assert!(took < Duration::from_secs(200), "{took:?} for a thousand");
    let error = &refused[0];
    assert!(error.kind() == Kind::Unavailable && error.retry_after().is_some(), "{error}");
    house.begin(1).await.commit().await.expect("a commit");

    // Back at another address: a probe finds it.
    house.source.change(|c| c.put_cell(fake::cell("dead", house.server.host(), house.server.port()).expect("a name")));
    house.catalog.refresh().await.expect("a refresh");
    until("the tenant to be served again", || async { house.data.begin(&gold).await.is_ok() }).await;
    for _ in 0..10 {
        house.begin(4).await.commit().await.expect("a commit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disabled_login_is_one_tenant_s_trouble() {
    let house = House::with(DataConfig { attempts: 1, ..DataConfig::default() }).await;
    let locked_out = house.register_dedicated(4).await;
    let role = house.row(4).placement.role();
    let mut admin = house.server.admin("postgres").await;
    insula_kit::disable_login(&mut admin, &role).await.expect("disable_login");
    let asked = trip(&house, &locked_out).await;
    assert!((1..=6).contains(&asked), "{asked}");
    house.begin(1).await.commit().await.expect("a commit");
    insula_kit::enable_login(&mut admin, &role).await.expect("enable_login");
    until("the tenant to be served again", || async { house.data.begin(&locked_out).await.is_ok() }).await;
}
