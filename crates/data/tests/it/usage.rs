//! What a tenant's work with its database costs, counted.

use insula_data::DataConfig;
use insula_data::lane::Param;
use insula_telemetry::usage::{Amounts, Meter, Usage};

use crate::house::House;

fn of(usage: &Usage, no: i64) -> Amounts {
    let mut all = Amounts::default();
    usage.drain().iter().filter(|(tenant, _)| tenant.get() == no).for_each(|(_, used)| all.add(used));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_time_are_counted_for_whom_they_are() {
    let usage = Usage::default();
    let house = House::with(DataConfig { usage: Some(usage.clone()), ..DataConfig::default() }).await;
    drop(usage.drain());
    let tenant = house.tenant(1);

    let mut tx = house.begin(1).await;
    for id in 1..=3_i64 {
        sqlx::query("INSERT INTO documents (id, body) VALUES ($1, 'x')").bind(id).execute(&mut tx).await.expect("a row");
    }
    let all: Vec<i64> = sqlx::query_scalar("SELECT id FROM documents").fetch_all(&mut tx).await.expect("rows");
    let one: Option<i64> =
        sqlx::query_scalar("SELECT id FROM documents WHERE id = 2").fetch_optional(&mut tx).await.expect("a row");
    let none: Option<i64> =
        sqlx::query_scalar("SELECT id FROM documents WHERE id = 9").fetch_optional(&mut tx).await.expect("none");
    assert_eq!((all.len(), one, none), (3, Some(2), None));
    tx.commit().await.expect("a commit");
    let used = of(&usage, 1);
    assert_eq!(used.get(Meter::Rows), 3 + 3 + 1);
    assert!(used.get(Meter::Database) > 0, "{used:?}");

    // What is rolled back was work all the same.
    let mut tx = house.begin(1).await;
    sqlx::query("DELETE FROM documents").execute(&mut tx).await.expect("rows");
    drop(tx);
    assert_eq!(of(&usage, 1).get(Meter::Rows), 3);

    let rows = house.data.lane().query(&tenant, "SELECT id FROM documents WHERE id > $1", &[Param::Int8(1)]).await.expect("rows");
    assert_eq!(rows.len(), 2);
    let all = usage.drain();
    assert!(all.iter().all(|(no, _)| no.get() == 1), "nobody else's: {all:?}");
    let used = all.first().expect("used").1;
    assert_eq!(used.get(Meter::Rows), 2);
    assert!(used.get(Meter::Database) > 0, "{used:?}");
}
