//! Futures that are dropped at any moment leave no transaction, no lost place and no foreign row behind.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use insula_data::DataConfig;

use crate::house::{House, until};

/// A duration that differs from call to call.
fn some_micros(most: u64) -> Duration {
    Duration::from_micros(RandomState::new().hash_one(0) % most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelled_work_never_shows_the_next_user_another_s_transaction() {
    let config = DataConfig { pool_connections: 4, ..DataConfig::default() };
    let house = House::with(config).await;
    for no in 1..=3 {
        house.add(no, 1, &format!("of {no}")).await;
    }
    let mut tasks = Vec::new();
    for worker in 0..12_i64 {
        let (data, contexts) = (house.data.clone(), [1, 2, 3].map(|no| house.tenant(no)));
        tasks.push(tokio::spawn(async move {
            for round in 0..150_i64 {
                let context = &contexts[usize::try_from((worker + round) % 3).expect("small")];
                let work = async {
                    let Ok(mut tx) = data.begin(context).await else { return };
                    let seen: Result<Vec<String>, _> =
                        sqlx::query_scalar("SELECT body FROM documents WHERE id = 1").fetch_all(&mut tx).await;
                    if let Ok(seen) = seen {
                        assert_eq!(seen, [format!("of {}", context.no)]);
                    }
                    let insert = "INSERT INTO documents (id) VALUES ($1)";
                    let id = 1_000 + worker * 1_000 + round;
                    if sqlx::query(insert).bind(id).execute(&mut tx).await.is_ok() && round % 2 == 0 {
                        drop(tx.commit().await);
                    }
                };
                // Most are cancelled: in the line, while connecting, in BEGIN, in a statement, in COMMIT.
                drop(tokio::time::timeout(some_micros(3_000), work).await);
            }
        }));
    }
    for task in tasks {
        task.await.expect("no row crossed");
    }
    // A backend ends a moment after its connection.
    until("all transactions to end, and all connections but four", || async {
        house.backends(Some("idle in transaction")).await + house.backends(Some("active")).await == 0
            && house.backends(None).await <= 4
    })
    .await;
    // All places came back: the pool can be filled to its size at once.
    let mut held = Vec::new();
    for no in [1, 1, 2, 2] {
        held.push(house.begin(no).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_statement_costs_its_connection_and_the_server_gives_up() {
    let house = House::new().await;
    let mut tx = house.begin(1).await;
    let endless = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b";
    let cancelled = tokio::time::timeout(Duration::from_millis(50), sqlx::query(endless).execute(&mut tx)).await;
    assert!(cancelled.is_err());
    drop(tx);
    until("the backend to notice", || async { house.backends(None).await == 0 }).await;
    assert!(house.bodies(1).await.is_empty());
}
