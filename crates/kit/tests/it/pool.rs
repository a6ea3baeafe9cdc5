//! Row tenants: grants, the binding, the fence.

use insula_core::TenantState;
use sqlx::Connection;

use crate::{Pool, enter, number, pid, refused, run, soon};

async fn documents() -> Pool {
    let mut pool = Pool::new().await;
    pool.migrate("CREATE TABLE documents (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title text NOT NULL); SELECT insula.tenant_table('documents')")
        .await
        .expect("a tenant table");
    pool
}

#[tokio::test]
async fn a_grant_opens_one_tenant_for_one_transaction() {
    let mut pool = documents().await;
    let (one, two) = (pool.tenant(1).await, pool.tenant(2).await);
    let fence = insula_kit::fence(&mut pool.admin).await.expect("fence");
    let mut app = pool.app().await;
    let pid = pid(&mut app).await;
    for (no, title) in [(one, "a"), (two, "b"), (two, "c")] {
        let mut tx = app.begin().await.expect("begin");
        enter(&mut tx, &pool.key(1).sign(no, 1, soon(), pid, fence)).await.expect("enter");
        sqlx::query("INSERT INTO documents (title) VALUES ($1)").bind(title).execute(&mut *tx).await.expect("insert");
        tx.commit().await.expect("commit");
    }
    assert_eq!(number(&mut app, "SELECT count(*) FROM documents").await.expect("count"), 0, "unbound sees nothing");
    let mut tx = app.begin().await.expect("begin");
    let text = pool.key(1).sign(two, 1, soon(), pid, -1).text();
    sqlx::query("SELECT insula.enter($1)").bind(&text).execute(&mut *tx).await.expect("enter by text");
    assert_eq!(number(&mut tx, "SELECT count(*) FROM documents").await.expect("count"), 2);
    assert_eq!(refused(enter(&mut tx, &pool.key(1).sign(one, 1, soon(), pid, fence)).await), "28000");
    drop(tx);
    assert_eq!(refused(run(&mut app, "INSERT INTO documents (title) VALUES ('unbound')").await), "42501");
}

#[tokio::test]
async fn a_change_of_state_fences_old_grants() {
    let mut pool = documents().await;
    let (one, two) = (pool.tenant(1).await, pool.tenant(2).await);
    let before = insula_kit::fence(&mut pool.admin).await.expect("fence");
    let after = insula_kit::set_tenant(&mut pool.admin, one, 2, TenantState::Suspended).await.expect("set_tenant");
    assert_eq!(after, before + 1);
    let mut app = pool.app().await;
    let pid = pid(&mut app).await;
    for (epoch, fence, code) in [(1, before, "28T01"), (1, -1, "28T01"), (2, before, "28T02")] {
        assert_eq!(refused(enter(&mut app, &pool.key(1).sign(one, epoch, soon(), pid, fence)).await), code);
    }
    enter(&mut app, &pool.key(1).sign(two, 1, soon(), pid, before)).await.expect("others go the long way round");
    insula_kit::set_tenant(&mut pool.admin, one, 3, TenantState::Active).await.expect("resume");
    enter(&mut app, &pool.key(1).sign(one, 3, soon(), pid, -1)).await.expect("resumed");
    insula_kit::remove_tenant(&mut pool.admin, one).await.expect("remove");
    assert_eq!(refused(enter(&mut app, &pool.key(1).sign(one, 3, soon(), pid, -1)).await), "28T01");
    assert_eq!(insula_kit::census(&mut pool.admin).await.expect("census").tenants, [(2, 1, "active".to_owned())]);
}

#[tokio::test]
async fn a_change_waits_for_transactions_and_then_ends_them() {
    let mut pool = documents().await;
    let one = pool.tenant(1).await;
    let mut app = pool.app().await;
    let pid = pid(&mut app).await;
    let mut tx = app.begin().await.expect("begin");
    enter(&mut tx, &pool.key(1).sign(one, 1, soon(), pid, -1)).await.expect("enter");
    run(&mut tx, "INSERT INTO documents (title) VALUES ('outstays')").await.expect("insert");
    insula_kit::set_tenant(&mut pool.admin, one, 2, TenantState::Suspended).await.expect("set_tenant");
    assert!(tx.commit().await.is_err(), "its session was ended");
    assert_eq!(number(&mut pool.admin, "SELECT count(*) FROM app.documents").await.expect("count"), 0);
}

#[tokio::test]
async fn numbers_have_no_gaps_per_tenant_and_name() {
    let mut pool = documents().await;
    let (one, two) = (pool.tenant(1).await, pool.tenant(2).await);
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let mut app = pool.app().await;
        let pid = pid(&mut app).await;
        let key = pool.key(1);
        tasks.spawn(async move {
            let mut given = Vec::new();
            for round in 0..20 {
                let no = if worker % 2 == 0 { one } else { two };
                let mut tx = app.begin().await.expect("begin");
                enter(&mut tx, &key.sign(no, 1, soon(), pid, -1)).await.expect("enter");
                let next = number(&mut tx, "SELECT insula.next_number('invoice')").await.expect("a number");
                if round % 5 == 4 {
                    tx.rollback().await.expect("rollback");
                } else {
                    tx.commit().await.expect("commit");
                    given.push((no, next));
                }
            }
            given
        });
    }
    let given = tasks.join_all().await.concat();
    for no in [one, two] {
        let mut numbers: Vec<i64> = given.iter().filter(|(n, _)| *n == no).map(|(_, v)| *v).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=64).collect::<Vec<_>>(), "no gap, no duplicate");
    }
    let mut app = pool.app().await;
    assert_eq!(refused(run(&mut app, "SELECT insula.next_number('invoice')").await), "28000");
}
