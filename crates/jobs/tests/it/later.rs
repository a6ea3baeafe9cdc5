//! Delayed jobs whose time has come: tenants take turns when there are more than are let go at once. Counted in takes, never in time.

use sqlx::PgConnection;

use crate::house::House;

/// Delayed jobs of a tenant, which come so many seconds from now (or came, when that is negative).
async fn delayed(admin: &mut PgConnection, tenants: (i64, i64), each: i64, seconds: i64) {
    let sql =
        "INSERT INTO insula.job (tenant_id, id, state, due, created_at, kind, body)
         SELECT t, gen_random_uuid(), 'l', clock_timestamp() + ($4 + n / 1000000.0) * interval '1 second', clock_timestamp(), 'note', '{}'
           FROM generate_series($1, $2) t, generate_series(1, $3) n";
    sqlx::query(sql).bind(tenants.0).bind(tenants.1).bind(each).bind(seconds).execute(admin).await.expect("jobs");
}

/// Takes one job, as a worker does. Those that wait for their time are let go first.
async fn take(admin: &mut PgConnection, me: i64) {
    let taken = sqlx::query("SELECT id FROM insula.work($1, '{}', '{}', '{}', 1)").bind(me).fetch_all(admin).await;
    assert_eq!(taken.expect("a take").len(), 1);
}

#[tokio::test]
async fn ten_whose_time_has_come_wait_for_one_take_whatever_another_has() {
    let house = House::new(2).await;
    let mut admin = house.admin().await;
    delayed(&mut admin, (1, 1), 20_000, -60).await;
    delayed(&mut admin, (2, 2), 10, -30).await;
    delayed(&mut admin, (2, 2), 10, 3_600).await;
    let me: i64 =
        sqlx::query_scalar("SELECT insula.worker_begin('test', 3600000)").fetch_one(&mut admin).await.expect("a worker");
    let waits = async |tenant: i64| {
        house.count(&format!("SELECT count(*) FROM insula.job WHERE tenant_id = {tenant} AND state <> 'l'")).await
    };
    take(&mut admin, me).await;
    assert_eq!((waits(1).await, waits(2).await), (1_500, 10));
    // Alone, it has all of a take.
    take(&mut admin, me).await;
    assert_eq!((waits(1).await, waits(2).await), (3_500, 10));
    for _ in 0..9 {
        take(&mut admin, me).await;
    }
    assert_eq!((waits(1).await, waits(2).await), (20_000, 10), "and nothing before its time");
}

#[tokio::test]
async fn a_few_of_many_tenants_are_found_among_those_whose_jobs_come_later() {
    let house = House::new(3_500).await;
    let mut admin = house.admin().await;
    delayed(&mut admin, (1, 1), 20_000, -60).await;
    delayed(&mut admin, (2, 3_500), 3, 3_600).await;
    for tenant in [700, 2_500, 3_500] {
        delayed(&mut admin, (tenant, tenant), 2, -30).await;
    }
    let me: i64 =
        sqlx::query_scalar("SELECT insula.worker_begin('test', 3600000)").fetch_one(&mut admin).await.expect("a worker");
    let others = "SELECT count(*) FROM insula.job WHERE tenant_id > 1 AND state <> 'l'";
    // A thousand tenants are looked at in a take.
    for (turn, found) in [(1, 2), (2, 2), (3, 4), (4, 6)] {
        take(&mut admin, me).await;
        assert_eq!(house.count(others).await, found, "take {turn}");
    }
    for _ in 0..20 {
        take(&mut admin, me).await;
    }
    assert_eq!(house.count("SELECT count(*) FROM insula.job WHERE state = 'l' AND due < clock_timestamp()").await, 0);
    assert_eq!(house.count(others).await, 6);
}
