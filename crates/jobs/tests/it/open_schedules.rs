//! Transactions of a tenant that stay open: others' schedules come, whatever it has locked of its own.

use insula_catalog::fake;
use insula_core::FeatureValue;
use insula_data::TenantTx;
use insula_jobs::schedules::{self, ScheduleOptions};
use insula_jobs::{EachTenant, Jobs, Zone};
use sqlx::PgConnection;

use crate::house::{House, Note};
use crate::schedules::{pattern, rarely};

/// A transaction that may stay open for longer than anything here waits.
async fn lasting(house: &House, no: i64) -> TenantTx {
    let mut plan = fake::plan("bronze").expect("a name");
    plan.limits.idle_in_transaction_timeout_ms = 600_000;
    house.source.change(|content| content.put_plan(plan));
    house.catalog.refresh().await.expect("a refresh");
    house.data.begin(&house.tenant(no)).await.expect("a transaction")
}

/// A transaction of the tenant that has paused all its schedules, and stays open.
async fn pauses(house: &House, no: i64) -> TenantTx {
    let mut open = lasting(house, no).await;
    let sql = "SELECT count(*) FILTER (WHERE insula.schedule_switch(name, true)) FROM insula.schedule_list()";
    let paused: i64 = sqlx::query_scalar(sql).fetch_one(&mut open).await.expect("paused");
    assert!(paused > 0);
    open
}

/// It was open until now, and comes to nothing.
async fn ends(mut open: TenantTx) {
    sqlx::query("SELECT 1").execute(&mut open).await.expect("still open");
    open.rollback().await;
}

/// Fails, instead of waiting for long, where somebody is waited for.
async fn impatient(house: &House) -> PgConnection {
    let mut admin = house.admin().await;
    sqlx::raw_sql("SET lock_timeout = '2s'").execute(&mut admin).await.expect("set");
    admin
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_that_are_locked_are_not_in_the_way_of_another_s() {
    let house = House::new(2).await;
    // More than are looked at in one go.
    let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
    let sql = "SELECT count(insula.schedule_put('mine ' || n, 'note', '{\"what\":\"mine\",\"millis\":0}', '0 0 29 2 *', 'UTC')) FROM generate_series(1, 700) n";
    sqlx::query(sql).execute(&mut tx).await.expect("put");
    tx.commit().await.expect("committed");
    house.put(2, "theirs", &rarely(), &Zone::Utc, &ScheduleOptions::default()).await;
    let worker = house.worker(Jobs::new().with::<Note>());
    house.planned().await;
    worker.stop().await;
    house.came("1 hour", "tenant_id = 1").await;
    house.came("1 second", "tenant_id = 2").await;
    let open = pauses(&house, 1).await;
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("the other's", "SELECT count(*) = 1 FROM app.done WHERE tenant_id = 2").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, 0);
    ends(open).await;
    house.until("its own, as it did not pause them after all", "SELECT count(*) = 700 FROM app.done WHERE tenant_id = 1").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_code_declares_is_kept_for_others_and_for_the_tenant_when_it_is_through() {
    let house = House::new(4).await;
    let jobs = |names: &[&str], cron: &str| {
        names.iter().fold(Jobs::new().with::<Note>(), |jobs, name| {
            jobs.each_tenant_with(name, pattern(cron), Zone::Tenant, EachTenant::default(), |_| Note::new("each", 0))
        })
    };
    let worker = house.worker(jobs(&["first"], "0 0 29 2 *"));
    house.until("rows", "SELECT count(*) = 4 FROM insula.schedule WHERE next_at IS NOT NULL").await;
    worker.stop().await;
    // One has locked what is changed, one has added what is declared, but not for good, and one has taken it for itself.
    let locked = pauses(&house, 1).await;
    let mut added = lasting(&house, 2).await;
    let options = ScheduleOptions::default();
    schedules::put(&mut added, "second", &rarely(), &Zone::Utc, &Note::new("mine", 0), &options).await.expect("put");
    house.put(3, "second", &rarely(), &Zone::Utc, &options).await;
    let worker = house.worker(jobs(&["first", "second"], "30 1 29 2 *"));
    let kept = |no: i64| {
        format!("SELECT string_agg(name || ' ' || origin || ' ' || cron, ', ' ORDER BY name) = $$first code 30 1 29 2 *, second code 30 1 29 2 *$$
                   AND bool_and(next_at IS NOT NULL) FROM insula.schedule WHERE tenant_id = {no}")
    };
    house.until("all of the fourth's", &kept(4)).await;
    house
        .until("the second's first", "SELECT cron = '30 1 29 2 *' FROM insula.schedule WHERE tenant_id = 2 AND name = 'first'")
        .await;
    house
        .until("the third's first", "SELECT cron = '30 1 29 2 *' FROM insula.schedule WHERE tenant_id = 3 AND name = 'first'")
        .await;
    assert_eq!(house.count("SELECT count(*) FROM insula.schedule WHERE tenant_id = 3 AND origin = 'tenant'").await, 1);
    // What came of others meanwhile, comes.
    house.came("1 second", "tenant_id = 4").await;
    house.until("the fourth's jobs", "SELECT count(*) = 2 FROM app.done WHERE tenant_id = 4").await;
    ends(locked).await;
    ends(added).await;
    house.until("the first's", &kept(1)).await;
    house.until("the second's", &kept(2)).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_and_what_follows_a_zone_is_done_for_others_first() {
    let house = House::new(2).await;
    let on = || ("digest".to_owned(), insula_core::Override::Value(FeatureValue::Switch(true)));
    for no in 1..=2 {
        house.change(no, |row| row.features = [on()].into()).await;
        house.put(no, "mine", &rarely(), &Zone::Tenant, &ScheduleOptions::default()).await;
    }
    let some = EachTenant { feature: Some("digest"), ..EachTenant::default() };
    let jobs = Jobs::new().with::<Note>().each_tenant_with("some", rarely(), Zone::Utc, some, |_| Note::new("some", 0));
    let worker = house.worker(jobs);
    house.until("rows", "SELECT count(*) = 4 AND bool_and(next_at IS NOT NULL) FROM insula.schedule").await;
    let open = pauses(&house, 1).await;
    for no in 1..=2 {
        let zone = |row: &mut insula_catalog::row::TenantRow| {
            row.features = [].into();
            row.settings.time_zone = "Asia/Kathmandu".parse().expect("a zone");
        };
        house.change(no, zone).await;
    }
    let changed = |no: i64| {
        format!(
            "SELECT count(*) = 1 AND bool_and(name = 'mine' AND local = 'Asia/Kathmandu' AND next_at IS NOT NULL) FROM insula.schedule WHERE tenant_id = {no}"
        )
    };
    house.until("the other's", &changed(2)).await;
    assert_eq!(
        house.count("SELECT count(*) FROM insula.schedule WHERE tenant_id = 1 AND local IS DISTINCT FROM 'Asia/Kathmandu'").await,
        2
    );
    ends(open).await;
    house.until("its own", &changed(1)).await;
    worker.stop().await;
}

#[tokio::test]
async fn house_keeping_leaves_what_is_locked_to_the_next_time() {
    let house = House::new(2).await;
    house
        .sql(
            "INSERT INTO insula.declared VALUES ('old', false, now() - interval '2 hours');
             INSERT INTO insula.schedule (tenant_id, name, origin, kind, cron, next_at, since, body)
                 SELECT t, n, o, 'note', '0 0 29 2 *', '2100-01-01', CASE o WHEN 'code' THEN now() ELSE now() + interval '1 day' END, '{}'
                   FROM generate_series(1, 2) t, (VALUES ('old', 'code'), ('ahead', 'tenant')) x (n, o)",
        )
        .await;
    let open = pauses(&house, 1).await;
    let mut impatient = impatient(&house).await;
    let mut tidy = async || {
        sqlx::query("SELECT insula.schedules_tidy('{}')").execute(&mut impatient).await.expect("nobody is waited for");
        let left = "SELECT coalesce(string_agg(tenant_id || name, ' ' ORDER BY tenant_id, name), '') FROM insula.schedule WHERE next_at IS NOT NULL";
        let left: String = sqlx::query_scalar(left).fetch_one(&mut house.admin().await).await.expect("schedules");
        (left, house.count("SELECT count(*) FROM insula.declared").await)
    };
    assert_eq!(tidy().await, ("1ahead 1old".to_owned(), 1));
    ends(open).await;
    assert_eq!(tidy().await, (String::new(), 0));
    assert_eq!(house.count("SELECT count(*) FROM insula.schedule WHERE name = 'ahead'").await, 2);
}
