//! The fence under load: once a tenant's change has returned, nothing that was let in before it writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use insula_core::TenantState;
use insula_kit::Way;
use sqlx::Connection;

use crate::stage::{Mode, OWN, Stage, no, run, soon};

/// Writers insert as fast as they can, with the newest fence and epoch that they have heard of, which may be old. The mover
/// suspends the tenant, looks at its rows, looks again later, resumes it.
async fn no_write_after_the_fence(way: Way, isolation: &'static str) {
    let mut stage = Stage::new(Mode::Row, way).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (epoch, fence) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicI64::new(-1)));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..6_i64 {
        let mut conn = stage.attacker().await;
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await.expect("a pid");
        let (key, stop, epoch, fence) = (stage.key(), stop.clone(), epoch.clone(), fence.clone());
        writers.spawn(async move {
            let mut written = 0_i64;
            while !stop.load(Ordering::Relaxed) {
                // Every second writer does not know the fence.
                let known = if writer % 2 == 0 { fence.load(Ordering::SeqCst) } else { -1 };
                let grant = key.sign(no(OWN), epoch.load(Ordering::SeqCst), soon(), pid, known);
                let done = async {
                    run(&mut conn, isolation).await?;
                    crate::stage::enter(&mut conn, &grant).await?;
                    run(&mut conn, "INSERT INTO docs (id, body) VALUES (gen_random_uuid(), 'load')").await?;
                    run(&mut conn, "COMMIT").await
                };
                match done.await {
                    Ok(()) => written += 1,
                    Err(error) => {
                        let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
                        assert!(["28T01", "28T02", "40001"].contains(&code.as_str()), "{error}");
                        run(&mut conn, "ROLLBACK").await.expect("rollback");
                        tokio::task::yield_now().await;
                    }
                }
            }
            written
        });
    }
    let mut observer = stage.server.admin(&stage.database).await;
    for round in 0..40_i64 {
        let next = 2 + round * 2;
        let raised = insula_kit::set_tenant(&mut stage.admin, no(OWN), next, TenantState::Suspended).await.expect("fenced");
        let count = "SELECT count(*) FROM app.docs WHERE tenant_id = 101";
        let before: i64 = sqlx::query_scalar(count).fetch_one(&mut observer).await.expect("a count");
        // The fence is known, the new state is not: the worst that a stale data plane can do short of lying.
        epoch.store(next, Ordering::SeqCst);
        for _ in 0..5 {
            tokio::task::yield_now().await;
            let after: i64 = sqlx::query_scalar(count).fetch_one(&mut observer).await.expect("a count");
            assert_eq!(after, before, "{way:?}, round {round}: a write after the fence {raised}");
        }
        let raised = insula_kit::set_tenant(&mut stage.admin, no(OWN), next + 1, TenantState::Active).await.expect("resumed");
        epoch.store(next + 1, Ordering::SeqCst);
        fence.store(raised, Ordering::SeqCst);
        // Until a writer has got through again.
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while sqlx::query_scalar::<_, i64>(count).fetch_one(&mut observer).await.expect("a count") == before {
            assert!(tokio::time::Instant::now() < deadline, "{way:?}: nobody writes after the tenant was resumed");
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let written: i64 = writers.join_all().await.into_iter().sum();
    assert!(written >= 40, "there was load: {written}");
    let _ = observer.close().await;
}

#[tokio::test]
async fn no_write_after_the_fence_by_setting() {
    no_write_after_the_fence(Way::Setting, "BEGIN").await;
}

#[tokio::test]
async fn no_write_after_the_fence_by_ticket() {
    no_write_after_the_fence(Way::Ticket, "BEGIN").await;
}

#[tokio::test]
async fn no_write_after_the_fence_with_a_snapshot_from_before() {
    no_write_after_the_fence(Way::Setting, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM docs LIMIT 1").await;
}
