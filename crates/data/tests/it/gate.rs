//! The gate stands before every way in, and the extended protocol behind it.

use insula_core::Kind;
use insula_data::Error;
use sqlx::{Executor, SqlSafeStr};

use crate::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_passes_the_gate() {
    let house = House::new().await;
    let mut tx = house.begin(1).await;
    let errors = [
        sqlx::query("SET search_path = public").execute(&mut tx).await.expect_err("SET"),
        sqlx::raw_sql("COMMIT").execute(&mut tx).await.expect_err("COMMIT"),
        (&mut tx).execute("LISTEN x").await.expect_err("LISTEN"),
        (&mut tx).fetch_optional("EXPLAIN SELECT 1").await.expect_err("EXPLAIN"),
        (&mut tx).prepare("COPY documents TO STDOUT".into_sql_str()).await.map(|_| ()).expect_err("COPY"),
        (&mut tx).describe("DECLARE c CURSOR WITH HOLD FOR SELECT 1".into_sql_str()).await.map(|_| ()).expect_err("DECLARE"),
    ];
    for error in errors {
        assert_eq!(Error::from(error).kind(), Kind::Security);
    }
    // A refusal costs nothing: nothing was sent.
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut tx).await.expect("a row");
    assert_eq!(one, 1);
    tx.commit().await.expect("a commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_statement_is_refused_by_the_server_also_in_raw_sql() {
    let house = House::new().await;
    for sql in ["SELECT 1; COMMIT", "SELECT 1; SET ROLE none; SELECT 2", "VALUES (1);;SELECT 1"] {
        let mut tx = house.begin(1).await;
        let error = sqlx::raw_sql(sql).execute(&mut tx).await.expect_err(sql);
        assert_eq!(insula_data::sqlstate(&error).as_deref(), Some("42601"), "{sql}");
    }
    assert!(house.bodies(1).await.is_empty());
}
