//! A transaction shows its tenant's rows and no other's, and leaves nothing behind.

use insula_core::Kind;
use insula_data::Error;
use sqlx::{QueryBuilder, Row};

use crate::house::{House, until};

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_sees_its_own_rows_in_row_and_database_isolation() {
    let house = House::new().await;
    house.register_dedicated(9).await;
    for no in [1, 2, 9] {
        house.add(no, 7, &format!("of {no}")).await;
    }
    for no in [1, 2, 9, 1] {
        assert_eq!(house.bodies(no).await, [format!("of {no}")]);
    }
    let mut tx = house.begin(1).await;
    let mut query = QueryBuilder::new("SELECT body FROM documents WHERE id IN (");
    query.separated(", ").push_bind(7_i64);
    let rows = query.push(")").build().fetch_all(&mut tx).await.expect("rows");
    assert_eq!(rows[0].get::<String, _>(0), "of 1");
    let updated = sqlx::query("UPDATE documents SET tenant_id = 2").execute(&mut tx).await.expect_err("another tenant's row");
    assert_eq!(Error::from(updated).kind(), Kind::Security);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_rolls_back_and_the_connection_serves_again() {
    let house = House::new().await;
    for n in 0..20 {
        let mut tx = house.begin(1).await;
        sqlx::query("INSERT INTO documents (id) VALUES ($1)").bind(n).execute(&mut tx).await.expect("a row");
        drop(tx);
        until("the connection to be idle", || async { house.backends(Some("idle")).await == 1 }).await;
    }
    assert!(house.bodies(1).await.is_empty());
    assert_eq!(house.backends(None).await, 1, "rolled back connections are used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_statement_cannot_be_committed_in_silence() {
    let house = House::new().await;
    let mut tx = house.begin(1).await;
    sqlx::query("INSERT INTO documents (id) VALUES (1)").execute(&mut tx).await.expect("a row");
    sqlx::query("INSERT INTO documents (id) VALUES (1)").execute(&mut tx).await.expect_err("a duplicate");
    assert!(matches!(tx.commit().await, Err(Error::RolledBack)));
    assert!(house.bodies(1).await.is_empty());
    // An error whose answer was never read is found by the commit.
    until("the only connection to be idle", || async { house.backends(Some("idle")).await == 1 }).await;
    let mut tx = house.begin(1).await;
    {
        use futures_util::StreamExt as _;
        let sql = "SELECT 1 / (3 - n) FROM generate_series(1, 5) n";
        let mut rows = sqlx::query(sql).fetch(&mut tx);
        rows.next().await.expect("a row").expect("the first row");
    }
    assert!(tx.commit().await.is_err());
    // Whose answer that was is not proven: the connection serves nobody again.
    until("the connection in doubt to be gone", || async { house.backends(None).await == 0 }).await;
    assert!(house.bodies(1).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_follow_the_plan_from_tenant_to_tenant_on_one_connection() {
    let house = House::new().await;
    let mut plan = insula_catalog::fake::plan("slow").expect("a name");
    plan.limits.statement_timeout_ms = 54_321;
    house.source.change(|c| c.put_plan(plan));
    house.register(4, "slow").await;
    let timeout = "SELECT current_setting('statement_timeout')";
    for (no, expected) in [(1, "10s"), (4, "54321ms"), (4, "54321ms"), (1, "10s"), (4, "54321ms"), (1, "10s")] {
        let mut tx = house.begin(no).await;
        let is: String = sqlx::query_scalar(timeout).fetch_one(&mut tx).await.expect("a setting");
        assert_eq!(is, expected);
        // Committed and rolled back in turns: a rolled back SET is undone, and must be known to be.
        if no == 1 { tx.rollback().await } else { tx.commit().await.expect("a commit") }
    }
    assert_eq!(house.backends(None).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_behind_on_a_connection() {
    let house = House::new().await;
    let before = inventory(&house).await;
    for no in [1, 2] {
        let mut tx = house.begin(no).await;
        sqlx::query("SELECT body FROM documents FOR UPDATE").fetch_all(&mut tx).await.expect("rows");
        for sql in ["SELECT set_config('insula.x', 'y', false)", "SELECT pg_advisory_lock(7)", "CREATE TEMP TABLE t ()"] {
            let mut tx = house.begin(no).await;
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut tx).await.expect_err(sql);
        }
        tx.commit().await.expect("a commit");
    }
    // What was dropped is rolled back beside us, and holds its locks while that is at work.
    until("nothing to be held", || async { inventory(&house).await == before }).await;
}

/// Locks and transactions that the house's backends hold, seen from outside.
async fn inventory(house: &House) -> Vec<(String, i64)> {
    let sql = "SELECT locktype || ' ' || mode, count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
               WHERE a.datname = $1 AND a.usename <> 'insula_admin' GROUP BY 1 ORDER BY 1";
    let mut admin = house.server.admin("postgres").await;
    sqlx::query_as(sql).bind(&house.database).fetch_all(&mut admin).await.expect("locks")
}
