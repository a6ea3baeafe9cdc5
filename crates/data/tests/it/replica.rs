//! Reads on a real streaming replica: they go there when the plan says so and it follows, and nowhere wrong otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use insula_catalog::{Replica, fake};
use insula_core::{FeatureValue, Kind, TenantState};
use insula_data::{DataConfig, Error, TenantTx};
use insula_testkit::{TestServer, own_server};
use sqlx::PgConnection;

use crate::house::{House, no, until};

/// Longer than a loaded machine makes a replica late.
const BOUND: Duration = Duration::from_secs(3);

/// A house on a server of its own, with a replica that is read from. Tenants 1 to 3 have the right, in a plan of its own.
struct Pair {
    house: House,
    replica: TestServer,
}

impl Pair {
    async fn new() -> Self {
        Self::with(DataConfig { read_staleness: BOUND, ..DataConfig::default() }).await
    }

    async fn with(config: DataConfig) -> Self {
        // For the life of the process, like the shared one.
        let server: &'static TestServer = Box::leak(Box::new(own_server().await));
        let house = House::on(server, config).await;
        let replica = server.replica().await;
        house.source.change(|c| {
            let mut plan = fake::plan("bronze").expect("a name");
            plan.features.insert("read_replica".to_owned(), FeatureValue::Switch(true));
            c.put_plan(plan);
            c.put_plan(fake::plan("silver").expect("a name"));
        });
        let pair = Self { house, replica };
        pair.name_replica().await;
        pair
    }

    async fn name_replica(&self) {
        let server = self.house.server;
        let mut cell = fake::cell(server.cell().as_str(), server.host(), server.port()).expect("a name");
        cell.replicas = Arc::new([Replica { host: self.replica.host().into(), port: self.replica.port() }]);
        self.house.source.change(|c| c.put_cell(cell));
        self.house.catalog.refresh().await.expect("a refresh");
    }

    async fn begin(&self, no: i64) -> TenantTx {
        self.house.data.begin_read(&self.house.tenant(no)).await.expect("a read")
    }

    /// Reads until one is on the replica, or none is (`false`).
    async fn until_on(&self, no: i64, replica: bool) {
        until("a read on the other server", || async { self.begin(no).await.on_replica() == replica }).await;
    }

    /// A read on the replica, as soon as there is one.
    async fn there(&self, no: i64) -> TenantTx {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let tx = self.begin(no).await;
            if tx.on_replica() {
                return tx;
            }
            assert!(Instant::now() < deadline, "no read on the replica");
        }
    }

    /// Tells the replica to replay no further, or on.
    async fn pause(&self, pause: bool) {
        let mut admin = self.replica.admin("postgres").await;
        let sql = if pause { "SELECT pg_wal_replay_pause()" } else { "SELECT pg_wal_replay_resume()" };
        sqlx::query(sql).execute(&mut admin).await.expect("told");
        until("the replay to stand or go", || async {
            let mut admin = self.replica.admin("postgres").await;
            let state: String =
                sqlx::query_scalar("SELECT pg_get_wal_replay_pause_state()").fetch_one(&mut admin).await.expect("");
            state == if pause { "paused" } else { "not paused" }
        })
        .await;
    }

    /// Sets a tenant's state where it lives and nowhere else: this process's catalog does not hear of it.
    async fn set_unheard(&self, database: &str, n: i64, state: TenantState) {
        insula_kit::set_tenant(&mut self.house.server.admin(database).await, no(n), 1, state).await.expect("set");
    }
}

async fn bodies(tx: &mut TenantTx) -> Vec<String> {
    sqlx::query_scalar("SELECT body FROM documents ORDER BY id").fetch_all(tx).await.expect("rows")
}

/// Makes the server write to its log.
async fn write_something(admin: &mut PgConnection) {
    sqlx::query("SELECT pg_logical_emit_message(true, 'test', 'something')").execute(admin).await.expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reads_go_to_the_replica_and_show_one_tenant_and_write_nothing() {
    let pair = Pair::new().await;
    for n in [1, 2] {
        pair.house.add(n, n, &format!("of {n}")).await;
    }
    let gold = pair.house.register_dedicated(4).await;
    pair.house.add(4, 4, "of 4").await;
    for n in [1, 2, 4, 1] {
        until("the row on the replica", || async {
            let mut tx = pair.begin(n).await;
            tx.on_replica() && bodies(&mut tx).await == [format!("of {n}")]
        })
        .await;
        let mut tx = pair.there(n).await;
        let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut tx).await.expect("told");
        assert!(standby, "it is what it says");
        tx.commit().await.expect("the end of a read");
        // Every word that writes.
        for sql in ["INSERT INTO documents (id) VALUES (9)", "UPDATE documents SET body = ''", "DELETE FROM documents"] {
            let mut tx = pair.begin(n).await;
            let refused = sqlx::query(sql).execute(&mut tx).await.expect_err(sql);
            assert_eq!(insula_data::sqlstate(&refused).as_deref(), Some("25006"), "{sql}: {refused}");
        }
        // And what is no statement of a tenant.
        let mut tx = pair.begin(n).await;
        let refused = sqlx::query("SET transaction_read_only = off").execute(&mut tx).await.expect_err("refused");
        assert_eq!(Error::from(refused).kind(), Kind::Security);
    }
    assert_eq!(gold.no.get(), 4);
    // Raw, as an attacker with the login would: unbound, nothing is to be seen there either.
    let role = format!("{}&options=-csearch_path=app", pair.replica.role_url("insula_app", &pair.house.database));
    let mut raw = <PgConnection as sqlx::Connection>::connect(&role).await.expect("the login works there");
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM documents").fetch_one(&mut raw).await.expect("a count");
    assert_eq!(seen, 0);
    sqlx::query("SELECT insula.enter(1, 1, 99999999999, -1, 1, '\\x00'::bytea)").execute(&mut raw).await.expect_err("forged");
    // On the cell's own server reads are reads, too.
    pair.pause(true).await;
    write_something(&mut pair.house.admin().await).await;
    pair.until_on(1, false).await;
    for n in [1, 4] {
        let mut tx = pair.begin(n).await;
        let refused = sqlx::query("DELETE FROM documents").execute(&mut tx).await.expect_err("a read");
        assert_eq!(insula_data::sqlstate(&refused).as_deref(), Some("25006"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_right_nobody_reads_there() {
    let pair = Pair::new().await;
    pair.house.register(5, "silver").await;
    pair.until_on(1, true).await;
    for _ in 0..20 {
        assert!(!pair.begin(5).await.on_replica());
    }
    // The tenant's own word goes before its plan's, both ways.
    for (n, on) in [(1, false), (5, true)] {
        let mut row = pair.house.row(n);
        row.features.insert("read_replica".to_owned(), FeatureValue::Switch(on).into());
        pair.house.publish(row).await;
        pair.until_on(n, on).await;
        assert!(on || !pair.begin(n).await.on_replica());
    }
    // A switch that is no switch is off.
    let mut row = pair.house.row(5);
    row.features.insert("read_replica".to_owned(), FeatureValue::Number(1).into());
    pair.house.publish(row).await;
    assert!(!pair.begin(5).await.on_replica());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_lags_is_left_alone_until_it_has_caught_up() {
    let pair = Pair::with(DataConfig { read_staleness: Duration::from_millis(500), ..DataConfig::default() }).await;
    pair.until_on(1, true).await;
    pair.pause(true).await;
    pair.house.add(1, 1, "new").await;
    let written = Instant::now();
    // At no time a read lacks what was committed longer ago than the bound.
    while written.elapsed() < Duration::from_millis(1_500) {
        // Before it begins: what begins in time may come late.
        let late = written.elapsed() > Duration::from_millis(500);
        let mut tx = pair.begin(1).await;
        let there = tx.on_replica();
        assert!(!(late && there), "read from a replica that lags, {:?} after", written.elapsed());
        if !there {
            assert_eq!(bodies(&mut tx).await, ["new"]);
        }
        tx.commit().await.expect("a read");
    }
    pair.pause(false).await;
    pair.until_on(1, true).await;
    assert_eq!(bodies(&mut pair.begin(1).await).await, ["new"]);
    // A server that writes nothing for longer than the bound has a replica that is fresh all the time.
    let idle = Instant::now();
    while idle.elapsed() < Duration::from_millis(1_500) {
        pair.until_on(1, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_has_written_may_read_it_at_once() {
    let pair = Pair::new().await;
    pair.until_on(1, true).await;
    let mut on_replica = 0;
    for n in 1..=60 {
        pair.house.add(1, n, "x").await;
        let moment = Instant::now();
        let tx = pair.house.data.begin_read_after(&pair.house.tenant(1), moment).await;
        let mut tx = tx.expect("a read");
        assert_eq!(bodies(&mut tx).await.len(), usize::try_from(n).expect("small"), "on the replica: {}", tx.on_replica());
        on_replica += u32::from(tx.on_replica());
        tx.commit().await.expect("a read");
    }
    // Without a pause the replica is not proven yet; with one it is.
    let moment = Instant::now();
    until("a read after the write on the replica", || async {
        pair.house.data.begin_read_after(&pair.house.tenant(1), moment).await.expect("a read").on_replica()
    })
    .await;
    assert!(on_replica < 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_replica_fails_no_read_and_is_used_again_when_it_is_back() {
    let mut pair = Pair::new().await;
    pair.house.add(1, 1, "x").await;
    pair.until_on(1, true).await;
    let (stop, reads, there) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut tasks = Vec::new();
    for worker in 0..4 {
        let (data, context) = (pair.house.data.clone(), pair.house.tenant(worker % 3 + 1));
        let (stop, reads, there) = (stop.clone(), reads.clone(), there.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let on_replica = data
                    .read::<_, Error, _>(&context, |tx| {
                        Box::pin(async move {
                            let _: i64 = sqlx::query_scalar("SELECT count(*) FROM documents").fetch_one(&mut *tx).await?;
                            Ok(tx.on_replica())
                        })
                    })
                    .await
                    .unwrap_or_else(|error| panic!("a read failed: {error:?}"));
                reads.fetch_add(1, Ordering::Relaxed);
                there.fetch_add(u32::from(on_replica), Ordering::Relaxed);
            }
        }));
    }
    let count = |counter: &Arc<AtomicU32>| counter.load(Ordering::Relaxed);
    until("reads there", || async { count(&there) > 100 }).await;
    pair.replica.kill().await;
    let dead = count(&reads);
    until("reads without it", || async { count(&reads) > dead + 200 }).await;
    assert!(!pair.begin(1).await.on_replica());
    pair.replica.revive().await;
    let back = count(&there);
    until("reads there again", || async { count(&there) > back + 100 }).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no read failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_suspended_tenant_is_refused_wherever_its_reads_would_go() {
    let pair = Pair::new().await;
    pair.until_on(1, true).await;
    let mut row = pair.house.row(1);
    row.state = TenantState::Suspended;
    pair.house.publish(row).await;
    let refused = pair.house.data.begin_read(&pair.house.tenant(1)).await.expect_err("suspended");
    assert!(matches!(refused, Error::Suspended(_)), "{refused}");
    pair.until_on(2, true).await;
}

/// The catalog's word has not come (the process is cut off from it), so only the databases can refuse.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fence_that_nobody_told_us_of_holds_on_the_replica_within_the_bound() {
    let bound = Duration::from_millis(500);
    let pair = Pair::with(DataConfig { read_staleness: bound, ..DataConfig::default() }).await;
    pair.house.register_dedicated(4).await;
    let own = pair.house.row(4).placement.database.to_string();
    for (n, database) in [(1, pair.house.database.clone()), (4, own)] {
        pair.until_on(n, true).await;
        // Held open: its login's session there outlives what ends it on the server.
        let idle = pair.there(n).await;
        idle.commit().await.expect("a read");
        pair.pause(true).await;
        pair.set_unheard(&database, n, TenantState::Suspended).await;
        if n == 4 {
            let role = pair.house.row(4).placement.role();
            insula_kit::disable_login(&mut pair.house.server.admin("postgres").await, &role).await.expect("disabled");
        }
        let fenced = Instant::now();
        let refusal = loop {
            // Before it begins: what begins in time may come late.
            let late = fenced.elapsed() > bound + Duration::from_millis(200);
            match pair.house.data.begin_read(&pair.house.tenant(n)).await {
                Err(error) => break error,
                Ok(tx) => assert!(tx.on_replica() && !late, "{n}: served after the fence"),
            }
        };
        assert!(matches!(refusal.kind(), Kind::Suspended | Kind::Security), "{n}: {refusal}");
        // Caught up, the replica itself refuses: also a session that it has had all the time.
        pair.pause(false).await;
        pair.until_on(2, true).await;
        for _ in 0..20 {
            assert!(pair.house.data.begin_read(&pair.house.tenant(n)).await.is_err(), "{n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_that_the_replica_does_not_know_as_the_route_does_is_read_on_the_server() {
    let pair = Pair::new().await;
    pair.until_on(1, true).await;
    pair.pause(true).await;
    // Known to the catalog and the server, not yet to the replica; still within the bound, so it counts as fresh.
    pair.house.register(6, "bronze").await;
    assert!(!pair.begin(6).await.on_replica());
    pair.house.register_dedicated(7).await;
    assert!(!pair.begin(7).await.on_replica());
    pair.pause(false).await;
    for n in [6, 7] {
        pair.until_on(n, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_is_taken_away_or_is_none_is_not_read_from() {
    let pair = Pair::new().await;
    pair.until_on(1, true).await;
    let server = pair.house.server;
    let cell = |host: &str, port| {
        let mut cell = fake::cell(server.cell().as_str(), server.host(), server.port()).expect("a name");
        cell.replicas = if host.is_empty() { Arc::new([]) } else { Arc::new([Replica { host: host.into(), port }]) };
        cell
    };
    pair.house.source.change(|c| c.put_cell(cell("", 0)));
    pair.house.catalog.refresh().await.expect("a refresh");
    assert!(!pair.begin(1).await.on_replica());
    // The server itself, and a port where nobody is: neither is ever a replica, and no read waits or fails for it.
    let bound = tokio::net::TcpSocket::new_v4().expect("a socket");
    bound.bind(([127, 0, 0, 1], 0).into()).expect("a port that is never listened on");
    let nobody = bound.local_addr().expect("an address").port();
    for (host, port) in [(server.host(), server.port()), ("localhost", nobody)] {
        pair.house.source.change(|c| c.put_cell(cell(host, port)));
        pair.house.catalog.refresh().await.expect("a refresh");
        let began = Instant::now();
        for _ in 0..50 {
            assert!(!pair.begin(1).await.on_replica());
        }
        // Five seconds each, if they did.
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    pair.name_replica().await;
    pair.until_on(1, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_was_promoted_is_none_any_more() {
    let pair = Pair::new().await;
    pair.until_on(1, true).await;
    let mut admin = pair.replica.admin("postgres").await;
    sqlx::query("SELECT pg_promote()").execute(&mut admin).await.expect("promoted");
    pair.until_on(1, false).await;
    // It goes on as a server of its own; nothing that it does makes it a replica again.
    for _ in 0..5 {
        write_something(&mut admin).await;
        assert!(!pair.begin(1).await.on_replica());
    }
}
