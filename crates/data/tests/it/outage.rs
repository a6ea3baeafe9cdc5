//! Connections that die, servers that restart, transactions that the database wants again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use futures_util::future::BoxFuture;
use insula_core::Kind;
use insula_data::{DataConfig, Error, TenantTx};
use tokio::sync::{Barrier, Mutex};

use crate::house::{House, until};

async fn kill_backends(house: &House) {
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename <> 'insula_admin'";
    let mut admin = house.server.admin("postgres").await;
    sqlx::query(kill).bind(&house.database).execute(&mut admin).await.expect("killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn idle_connections_that_died_are_replaced_without_anyone_noticing() {
    let house = House::new().await;
    for _ in 0..5 {
        let held = (house.begin(1).await, house.begin(2).await);
        held.0.commit().await.expect("a commit");
        held.1.commit().await.expect("a commit");
        kill_backends(&house).await;
        until("the backends to be gone", || async { house.backends(None).await == 0 }).await;
        assert!(house.bodies(1).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_backends_under_load_lose_no_acknowledged_commit_and_repeat_none() {
    let house = House::new().await;
    let mut tasks = Vec::new();
    for worker in 0..6_i64 {
        let (data, context) = (house.data.clone(), house.tenant(worker % 3 + 1));
        tasks.push(tokio::spawn(async move {
            let mut known = Vec::new();
            for n in 0..60 {
                let id = worker * 1_000 + n;
                let done = data
                    .transact(&context, |tx| {
                        let insert = sqlx::query("INSERT INTO documents (id) VALUES ($1)").bind(id);
                        Box::pin(async move { insert.execute(tx).await.map_err(Error::from) })
                    })
                    .await;
                match done {
                    Ok(_) => known.push(id),
                    // Nothing else may come of it: not a duplicate from a repeated commit.
                    Err(error) => {
                        assert!(matches!(error.kind(), Kind::Unavailable) || matches!(error, Error::CommitUnknown), "{error:?}")
                    }
                }
            }
            (context.no.get(), known)
        }));
    }
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        kill_backends(&house).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // So many lost connections may have opened the circuit.
    until("the database to be asked again", || async { house.data.begin(&house.tenant(1)).await.is_ok() }).await;
    let mut acknowledged = 0;
    for task in tasks {
        let (no, known) = task.await.expect("no panic");
        acknowledged += known.len();
        let mut tx = house.begin(no).await;
        let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM documents").fetch_all(&mut tx).await.expect("rows");
        assert!(known.iter().all(|id| ids.contains(id)), "an acknowledged commit is missing");
    }
    assert!(acknowledged > 0);
}

static RUNS: AtomicU32 = AtomicU32::new(0);
static MET: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(2));

fn crossing(tx: &mut TenantTx, first: i64, second: i64) -> BoxFuture<'_, Result<(), Error>> {
    Box::pin(async move {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let update = "UPDATE documents SET body = (body::int + 1)::text WHERE id = $1";
        sqlx::query(update).bind(first).execute(&mut *tx).await?;
        if run < 2 {
            // Each holds its first row: now they can only run into each other.
            MET.wait().await;
        }
        sqlx::query(update).bind(second).execute(&mut *tx).await?;
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deadlock_is_repeated_until_both_have_their_way() {
    let house = House::new().await;
    house.add(1, 1, "0").await;
    house.add(1, 2, "0").await;
    let (data, context) = (&house.data, house.tenant(1));
    let cross = async |first: i64, second: i64| data.transact(&context, |tx| crossing(tx, first, second)).await;
    let (one, two) = tokio::join!(cross(1, 2), cross(2, 1));
    one.expect("done");
    two.expect("done");
    assert!(RUNS.load(Ordering::Relaxed) > 2, "there was no deadlock to repeat");
    assert_eq!(house.bodies(1).await, ["2", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_in_a_transaction_ends_it_clearly() {
    let house = House::new().await;
    let mut tx = house.begin(1).await;
    sqlx::query("INSERT INTO documents (id) VALUES (1)").execute(&mut tx).await.expect("a row");
    kill_backends(&house).await;
    assert!(matches!(tx.commit().await, Err(Error::CommitUnknown)));
    assert!(house.bodies(1).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_crashes_under_load_comes_back_with_every_acknowledged_row() {
    let server = Box::leak(Box::new(insula_testkit::durable_server().await));
    let house = House::on(server, DataConfig::default()).await;
    let (stop, known) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let mut tasks = Vec::new();
    for worker in 0..4_i64 {
        let (data, context) = (house.data.clone(), house.tenant(1));
        let (stop, known) = (stop.clone(), known.clone());
        tasks.push(tokio::spawn(async move {
            let mut id = worker * 1_000_000;
            while !stop.load(Ordering::Relaxed) {
                id += 1;
                let insert = "INSERT INTO documents (id) VALUES ($1)";
                let Ok(mut tx) = data.begin(&context).await else { continue };
                if sqlx::query(insert).bind(id).execute(&mut tx).await.is_ok() && tx.commit().await.is_ok() {
                    known.lock().await.push(id);
                }
            }
        }));
    }
    until("work to be done", || async { known.lock().await.len() > 50 }).await;
    // A backend that dies by SIGKILL makes Postgres end all others and recover: a restart, with recovery.
    let victim = "SELECT pid FROM pg_stat_activity WHERE usename = 'insula_app' LIMIT 1";
    let pid: i32 = sqlx::query_scalar(victim).fetch_one(&mut house.admin().await).await.expect("a backend");
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let before = known.lock().await.len();
    until("work to go on", || async { known.lock().await.len() > before + 50 }).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no panic");
    }
    let mut tx = house.begin(1).await;
    let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM documents").fetch_all(&mut tx).await.expect("rows");
    let ids: std::collections::BTreeSet<i64> = ids.into_iter().collect();
    assert!(known.lock().await.iter().all(|id| ids.contains(id)), "an acknowledged commit is missing");
}
