//! What comes again: once for each firing, whoever dies and whatever the clock does.

use std::time::Duration;

use insula_core::{FeatureValue, TenantState};
use insula_jobs::schedules::{self, ScheduleOptions};
use insula_jobs::{Cron, EachTenant, Error, Jobs, OffPeak, WorkerConfig, Zone};
use insula_planner::cron;

use crate::house::{House, Note};

pub(crate) fn pattern(text: &str) -> Cron {
    Cron::parse(text).expect("a pattern")
}

/// Never by itself while a test runs.
pub(crate) fn rarely() -> Cron {
    pattern("0 0 29 2 *")
}

impl House {
    pub(crate) async fn put(&self, no: i64, name: &str, cron: &Cron, zone: &Zone, options: &ScheduleOptions) {
        let mut tx = self.data.begin(&self.tenant(no)).await.expect("a transaction");
        schedules::put(&mut tx, name, cron, zone, &Note::new(name, 0), options).await.expect("put");
        tx.commit().await.expect("committed");
    }

    async fn list(&self, no: i64) -> Vec<schedules::Schedule> {
        let mut tx = self.data.begin(&self.tenant(no)).await.expect("a transaction");
        schedules::list(&mut tx).await.expect("a list")
    }

    pub(crate) async fn sql(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut self.admin().await).await.expect(sql);
    }

    /// Lets all schedules of a condition have come so long ago.
    pub(crate) async fn came(&self, ago: &str, which: &str) {
        let sql = format!(
            "UPDATE insula.schedule SET next_at = clock_timestamp() - interval '{ago}', version = version + 1 WHERE {which}"
        );
        self.sql(&sql).await;
    }

    pub(crate) async fn planned(&self) {
        self.until("times", "SELECT count(*) = 0 FROM insula.schedule WHERE next_at IS NULL AND NOT paused").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_fires_in_its_tenant_s_scope_by_its_clock() {
    let house = House::new(2).await;
    let zone = |row: &mut insula_catalog::row::TenantRow| row.settings.time_zone = "Asia/Kathmandu".parse().expect("a zone");
    house.change(1, zone).await;
    let options = ScheduleOptions { retention: Some(Duration::from_secs(60)), priority: 3, ..ScheduleOptions::default() };
    house.put(1, "night", &pattern("0 2 * * *"), &Zone::Tenant, &options).await;
    house.put(1, "utc", &pattern("0 2 * * *"), &Zone::Utc, &options).await;
    house.put(2, "night", &pattern("0 2 * * *"), &Zone::named("Europe/Vienna").expect("a zone"), &options).await;
    let worker = house.worker(Jobs::new().with::<Note>());
    house.planned().await;
    let local = "SELECT count(*) FROM insula.schedule WHERE (next_at AT TIME ZONE coalesce(zone, local))::time = '02:00' AND next_at > now()";
    assert_eq!(house.count(local).await, 3);
    let listed = house.list(1).await;
    let zones: Vec<_> = listed.iter().map(|schedule| (schedule.name.as_str(), schedule.zone.as_deref())).collect();
    assert_eq!(zones, [("night", Some("Asia/Kathmandu")), ("utc", Some("UTC"))]);
    house.came("2 seconds", "tenant_id = 1 AND name = 'night'").await;
    house.until("a job", "SELECT count(*) = 1 FROM app.done WHERE tenant_id = 1 AND what = 'night'").await;
    house.empty().await;
    let kept = "SELECT count(*) FROM insula.job_end WHERE outcome = 'done' AND rank = -3 AND principal = 'user-1' AND key LIKE 'schedule:night:20%Z'";
    assert_eq!(house.count(kept).await, 1);
    let next = house.list(1).await[0].next_at.expect("a time");
    assert!(next > chrono::Utc::now() && next < chrono::Utc::now() + Duration::from_secs(25 * 3_600));
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 1, "nobody else's");
    worker.stop().await;
}

/// Four workers at a time, of which one is killed after each round and another comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_firing_is_one_job_over_four_workers_and_kills() {
    let house = House::new(20).await;
    for no in 1..=20 {
        for name in ["a", "b", "c", "d", "e"] {
            house.put(no, name, &rarely(), &Zone::Tenant, &ScheduleOptions::default()).await;
        }
    }
    let start = || house.worker(Jobs::new().with::<Note>());
    let mut workers: Vec<_> = (0..4).map(|_| start()).collect();
    house.planned().await;
    for round in 1..=10 {
        house.came("1 second", "true").await;
        // In the midst of it.
        house.until("some jobs", &format!("SELECT count(*) > {} FROM app.done", (round - 1) * 100 + 10)).await;
        workers.remove(0).kill();
        house.until("all to have fired", "SELECT count(*) = 0 FROM insula.schedule WHERE next_at <= now()").await;
        workers.push(start());
    }
    house.empty().await;
    assert_eq!(house.count("SELECT count(DISTINCT id) FROM app.done").await, 1_000, "10 rounds of 100, each once");
    assert_eq!(
        house
            .count("SELECT count(*) FROM (SELECT tenant_id, what FROM app.done GROUP BY 1, 2 HAVING count(DISTINCT id) <> 10) x")
            .await,
        0
    );
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_comes_once_and_late_also_after_a_suspension() {
    let house = House::new(2).await;
    let no = house.tenant(1).no;
    for tenant in [1, 2] {
        house.put(tenant, "minutely", &pattern("* * * * *"), &Zone::Tenant, &ScheduleOptions::default()).await;
    }
    let worker = house.worker(Jobs::new().with::<Note>());
    house.planned().await;
    worker.stop().await;
    // No worker for two hours, and one of them is suspended meanwhile.
    house.came("2 hours", "true").await;
    house.change(1, |row| row.state = TenantState::Suspended).await;
    insula_kit::set_tenant(&mut house.admin().await, no, 2, TenantState::Suspended).await.expect("suspended");
    let before = house.count("SELECT count(*) FROM app.done").await;
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("one, late", "SELECT count(*) > 0 FROM app.done WHERE tenant_id = 2").await;
    house.until("looks", "SELECT count(*) = 1 FROM insula.worker WHERE beats > 4").await;
    let fired = house.count("SELECT count(*) FROM app.done").await - before;
    assert!((1..=2).contains(&fired), "one for 120 (and one if a minute begins just now): {fired}");
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, 0, "held");
    assert_eq!(
        house.count("SELECT count(*) FROM insula.schedule WHERE tenant_id = 1 AND next_at < now() - interval '1 hour'").await,
        1
    );
    let row = |row: &mut insula_catalog::row::TenantRow| (row.state, row.placement.epoch) = (TenantState::Active, 3);
    house.change(1, row).await;
    insula_kit::set_tenant(&mut house.admin().await, no, 3, TenantState::Active).await.expect("resumed");
    house.until("one, late", "SELECT count(*) > 0 FROM app.done WHERE tenant_id = 1").await;
    assert!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await <= 2);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_and_is_not_made_up_for_and_what_is_taken_away_is_gone() {
    let house = House::new(2).await;
    for tenant in [1, 2] {
        house.put(tenant, "night", &pattern("0 2 * * *"), &Zone::Tenant, &ScheduleOptions::default()).await;
    }
    let worker = house.worker(Jobs::new().with::<Note>());
    house.planned().await;
    let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
    assert!(schedules::pause(&mut tx, "night").await.expect("an answer"));
    assert!(!schedules::pause(&mut tx, "other").await.expect("an answer"));
    tx.commit().await.expect("committed");
    house.came("1 day", "true").await;
    house.until("the other's", "SELECT count(*) = 1 FROM app.done WHERE tenant_id = 2").await;
    let listed = house.list(1).await;
    assert!(listed[0].paused && listed[0].next_at.is_none() && listed[0].last_at.is_none());
    // Put again, it stays paused.
    house.put(1, "night", &pattern("0 3 * * *"), &Zone::Tenant, &ScheduleOptions::default()).await;
    assert!(house.list(1).await[0].paused);
    let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
    assert!(schedules::resume(&mut tx, "night").await.expect("an answer"));
    tx.commit().await.expect("committed");
    house.planned().await;
    assert!(house.list(1).await[0].next_at.expect("a time") > chrono::Utc::now());
    let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
    assert!(schedules::remove(&mut tx, "night").await.expect("an answer"));
    assert!(!schedules::remove(&mut tx, "night").await.expect("an answer"));
    tx.commit().await.expect("committed");
    assert_eq!(house.count("SELECT count(*) FROM insula.schedule").await, 1, "the other's");
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, 0);
    // The host side does the same.
    assert_eq!(house.count("SELECT count(*) FROM insula.schedules_of(NULL, 10)").await, 1);
    assert_eq!(house.count("SELECT count(*) FROM insula.schedules_of(1, 10)").await, 0);
    assert_eq!(house.count("SELECT insula.schedule_pause(2, 'night', true)::int::bigint").await, 1);
    assert_eq!(house.count("SELECT insula.schedule_pause(1, 'night', true)::int::bigint").await, 0);
    house.came("1 day", "true").await;
    let beats = house.count("SELECT max(beats)::bigint FROM insula.worker").await;
    house.until("looks", &format!("SELECT count(*) = 1 FROM insula.worker WHERE beats > {beats} + 3")).await;
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_leapt_ahead_and_back_leaves_nothing_behind_in_the_future() {
    let house = House::new(3).await;
    for tenant in 1..=3 {
        house.put(tenant, "night", &pattern("0 2 * * *"), &Zone::Tenant, &ScheduleOptions::default()).await;
    }
    let worker = house.worker(Jobs::new().with::<Note>());
    house.planned().await;
    worker.stop().await;
    // A year ahead, where it fired and was computed; then back. And half an hour, which fires nothing twice.
    let leap = |no: i64, by: &str, next: &str| {
        format!(
            "UPDATE insula.schedule SET since = now() + interval '{by}', last_at = now() + interval '{by}', next_at = now() + interval '{next}', version = version + 1 WHERE tenant_id = {no}"
        )
    };
    house.sql(&leap(1, "1 year", "366 days")).await;
    house.sql(&leap(2, "30 minutes", "1 day 30 minutes")).await;
    // Ahead: everything comes at once, and once.
    house.came("1 year", "tenant_id = 3").await;
    let worker = house.worker(Jobs::new().with::<Note>());
    house
        .until("sense", "SELECT count(*) = 3 FROM insula.schedule WHERE next_at BETWEEN now() AND now() + interval '26 hours'")
        .await;
    house.until("the one that came", "SELECT count(*) = 1 FROM app.done WHERE tenant_id = 3").await;
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 1);
    let kept = "SELECT count(*) FROM insula.schedule WHERE tenant_id = 2 AND next_at > now() + interval '1 day'";
    assert_eq!(house.count(kept).await, 1, "stays as it was");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_waits_for_the_window_of_its_tenant_s_day() {
    let house = House::new(2).await;
    let minute = house.count("SELECT (extract(hour FROM now() AT TIME ZONE 'UTC') * 60)::bigint").await;
    let minute = |hours: i64| u16::try_from((minute + hours * 60).rem_euclid(1_440)).expect("a minute");
    let window = |from, to| ScheduleOptions {
        off_peak: Some(OffPeak::new(minute(from), minute(to)).expect("a window")),
        ..ScheduleOptions::default()
    };
    house.put(1, "later", &pattern("0 * * * *"), &Zone::Utc, &window(5, 8)).await;
    house.put(2, "now", &pattern("0 * * * *"), &Zone::Utc, &window(-2, 3)).await;
    let worker = house.worker(Jobs::new().with::<Note>());
    house.planned().await;
    let window = "next_at > now() + interval '3 hours' AND next_at <= now() + interval '5 hours'";
    assert_eq!(
        house.count(&format!("SELECT count(*) FROM insula.schedule WHERE tenant_id = 1 AND {window}")).await,
        1,
        "put off"
    );
    house.came("3 hours", "true").await;
    house.until("the one in its window", "SELECT count(*) = 1 FROM app.done WHERE tenant_id = 2").await;
    house
        .until("the other to be put off", &format!("SELECT count(*) = 1 FROM insula.schedule WHERE tenant_id = 1 AND {window}"))
        .await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_never_comes_says_why_and_holds_up_nobody() {
    let house = House::new(2).await;
    let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
    let note = Note::new("x", 0);
    let nowhere = Zone::Named("Nowhere/At_All".into());
    let refused = schedules::put(&mut tx, "bad", &rarely(), &nowhere, &note, &ScheduleOptions::default()).await;
    assert!(matches!(&refused, Err(Error::Cron(_))) && refused.expect_err("refused").kind() == insula_core::Kind::Invalid);
    let large = Note::new(&"x".repeat(300_000), 0);
    let refused = schedules::put(&mut tx, "large", &rarely(), &Zone::Utc, &large, &ScheduleOptions::default()).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    for (name, cron, zone) in [("a", "never", "UTC"), ("b", "0 0 30 2 *", "UTC"), ("c", "0 2 * * *", "Nowhere")] {
        let sql = "SELECT insula.schedule_put($1, 'note', '{\"what\":\"x\",\"millis\":0}', $2, $3)";
        sqlx::query(sql).bind(name).bind(cron).bind(zone).execute(&mut tx).await.expect("the database does not read it");
    }
    tx.commit().await.expect("committed");
    for (args, code) in [
        ("'', 'note', '{}', '* * * * *'", "23514"),
        ("'x', '', '{}', '* * * * *'", "23514"),
        ("'x', 'note', '{', '* * * * *'", "22P02"),
        ("'x', 'note', NULL, '* * * * *'", "23502"),
        ("'x', 'note', '{}', '* * * * *', off_peak_from => 5::smallint", "22023"),
        ("'x', 'note', '{}', '* * * * *', off_peak_from => 5::smallint, off_peak_to => 5::smallint", "22023"),
        ("'x', 'note', '{}', '* * * * *', priority => 2000::smallint", "22023"),
        ("'x', 'note', repeat('x', 300000), '* * * * *'", "54000"),
    ] {
        let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
        let refused = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT insula.schedule_put({args})"))).execute(&mut tx).await;
        let found = refused.as_ref().err().and_then(|e| e.as_database_error()).and_then(|e| e.code().map(|c| c.into_owned()));
        assert_eq!(found.as_deref(), Some(code), "{args}: {refused:?}");
    }
    house.put(2, "good", &rarely(), &Zone::Utc, &ScheduleOptions::default()).await;
    let worker = house.worker(Jobs::new().with::<Note>());
    house.planned().await;
    house.came("1 second", "name = 'good'").await;
    house.until("the good one", "SELECT count(*) = 1 FROM app.done").await;
    let listed = house.list(1).await;
    assert!(listed.iter().all(|schedule| schedule.next_at.is_none() && schedule.error.is_some()), "{listed:?}");
    assert!(listed[0].error.as_deref().expect("an error").contains("no cron pattern"));
    // Put right, it comes.
    house.put(1, "a", &rarely(), &Zone::Utc, &ScheduleOptions::default()).await;
    house.planned().await;
    assert!(house.list(1).await[0].next_at.is_some());
    worker.stop().await;
}

/// A window's length is hours, a spread's is minutes; which tiers there are, the catalog says.
#[tokio::test(flavor = "multi_thread")]
async fn what_code_declares_every_tenant_has_spread_by_tier() {
    let house = House::new(8).await;
    for (no, plan) in [(1, "platinum"), (2, "platinum"), (3, "gold"), (4, "gold")] {
        house.change(no, |row| row.plan = plan.parse().expect("a name")).await;
    }
    let on = ("digest".to_owned(), insula_core::Override::Value(FeatureValue::Switch(true)));
    house.change(5, |row| row.features = [on].into()).await;
    let options = EachTenant { spread: Duration::from_secs(900), ..EachTenant::default() };
    let some = EachTenant { feature: Some("digest"), ..EachTenant::default() };
    let jobs = |cron: &str| {
        Jobs::new()
            .each_tenant_with("all", pattern(cron), Zone::Tenant, options.clone(), |tenant| Note::new(tenant.slug.as_str(), 0))
            .each_tenant_with("some", rarely(), Zone::Utc, some.clone(), |_| Note::new("some", 0))
    };
    let worker = house.worker(jobs("0 2 * * *"));
    house.until("rows", "SELECT count(*) = 9 FROM insula.schedule WHERE origin = 'code' AND next_at IS NOT NULL").await;
    assert_eq!(house.count("SELECT tenant_id FROM insula.schedule WHERE name = 'some'").await, 5);
    // Three tiers have tenants: 300 seconds each, the highest first.
    let place = "extract(epoch FROM next_at - date_trunc('day', next_at) - interval '2 hours') / 300";
    let order = format!("SELECT string_agg(floor({place})::text, '' ORDER BY tenant_id) FROM insula.schedule WHERE name = 'all'");
    let order: String =
        sqlx::query_scalar(sqlx::AssertSqlSafe(order)).fetch_one(&mut house.admin().await).await.expect("an order");
    assert_eq!(order, "00112222");
    assert_eq!(house.count("SELECT count(DISTINCT next_at) FROM insula.schedule WHERE name = 'all'").await, 8);
    house.came("1 second", "name = 'all'").await;
    house.until("each one's", "SELECT count(*) = 8 FROM app.done WHERE what = 't' || tenant_id").await;

    // One comes, one's clock is another, one loses what it had, and the code's pattern changes.
    let mut row = insula_catalog::fake::tenant("t9", 9, "bronze", house.server.cell().as_str()).expect("names");
    row.placement.database = house.database.as_str().into();
    house.sql("INSERT INTO insula.tenant (no, epoch) VALUES (9, 1)").await;
    house.source.change(|content| content.put_tenant(row));
    house.change(6, |row| row.settings.time_zone = "America/Chicago".parse().expect("a zone")).await;
    house.change(5, |row| row.features.clear()).await;
    house
        .until("the one that came", "SELECT count(*) = 1 FROM insula.schedule WHERE tenant_id = 9 AND next_at IS NOT NULL")
        .await;
    let local = "SELECT count(*) = 1 FROM insula.schedule WHERE tenant_id = 6 AND name = 'all' AND local = 'America/Chicago'
                    AND (next_at AT TIME ZONE local)::time BETWEEN '02:10' AND '02:15'";
    house.until("the other clock", local).await;
    house.until("what was lost to be gone", "SELECT count(*) = 0 FROM insula.schedule WHERE name = 'some'").await;
    let other = house.worker(jobs("0 3 * * *"));
    let local = "SELECT count(*) = 9 FROM insula.schedule WHERE (next_at AT TIME ZONE local)::time BETWEEN '03:00' AND '03:15'";
    house.until("the other pattern", local).await;
    worker.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_code_declares_is_paused_not_removed_and_goes_with_the_code() {
    let house = House::new(3).await;
    house.put(3, "digest", &rarely(), &Zone::Utc, &ScheduleOptions::default()).await;
    let jobs = Jobs::new().each_tenant("digest", rarely(), Zone::Tenant, |_| Note::new("digest", 0));
    let worker = house.worker(jobs);
    house.until("rows", "SELECT count(*) = 2 FROM insula.schedule WHERE origin = 'code'").await;
    let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
    assert!(schedules::pause(&mut tx, "digest").await.expect("an answer"));
    tx.commit().await.expect("committed");
    let mut tx = house.data.begin(&house.tenant(2)).await.expect("a transaction");
    let refused = schedules::remove(&mut tx, "digest").await.expect_err("code's");
    assert_eq!(refused.kind(), insula_core::Kind::Conflict);
    tx.rollback().await;
    let mut tx = house.data.begin(&house.tenant(2)).await.expect("a transaction");
    let note = Note::new("mine", 0);
    let refused =
        schedules::put(&mut tx, "digest", &rarely(), &Zone::Utc, &note, &ScheduleOptions::default()).await.expect_err("code's");
    assert_eq!(refused.kind(), insula_core::Kind::Conflict);
    tx.rollback().await;
    worker.stop().await;
    // A version whose code does not declare it fires it never, and takes it away in time; what was switched off stays so.
    house.came("1 minute", "true").await;
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("the tenant's own", "SELECT count(*) = 1 FROM app.done WHERE tenant_id = 3").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 1);
    worker.stop().await;
    house.sql("UPDATE insula.declared SET kept_at = kept_at - interval '2 hours'").await;
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("rows to go", "SELECT string_agg(tenant_id::text, '' ORDER BY 1) = '13' FROM insula.schedule").await;
    worker.stop().await;
}

/// What a worker computes through the database, on the nights that a clock leaps.
#[tokio::test(flavor = "multi_thread")]
async fn a_local_time_comes_once_in_spring_and_in_autumn() {
    let house = House::new(3).await;
    let options = ScheduleOptions { retention: Some(Duration::from_secs(600)), ..ScheduleOptions::default() };
    let vienna = Zone::named("Europe/Vienna").expect("a zone");
    for no in 1..=3 {
        house.put(no, "night", &pattern("30 2 * * *"), &vienna, &options).await;
    }
    // As if put before the night, and no worker came until now: what is late comes by its own name.
    for (no, since) in [(1, "2026-03-28T12:00Z"), (2, "2025-10-25T12:00Z"), (3, "2025-10-26T00:45Z")] {
        house.sql(&format!("UPDATE insula.schedule SET since = '{since}' WHERE tenant_id = {no}")).await;
    }
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("three ends", "SELECT count(*) = 3 FROM insula.job_end WHERE outcome = 'done'").await;
    let keys: Vec<String> = sqlx::query_scalar("SELECT substr(key, 16) FROM insula.job_end ORDER BY tenant_id")
        .fetch_all(&mut house.admin().await)
        .await
        .expect("keys");
    // The third asked between the two hours that are called two: it had been.
    assert_eq!(keys, ["2026-03-29T01:00:00.000000Z", "2025-10-26T00:30:00.000000Z", "2025-10-27T01:30:00.000000Z"]);
    worker.stop().await;
}

/// Somebody changes schedules and does not commit: the worker waits for nobody, and what was changed is looked at again.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_holds_up_no_other_schedule() {
    let house = House::new(2).await;
    for no in 1..=2 {
        house.put(no, "night", &rarely(), &Zone::Utc, &ScheduleOptions::default()).await;
    }
    let worker = house.worker(Jobs::new().with::<Note>());
    house.planned().await;
    house.came("-6 seconds", "tenant_id = 1").await;
    let mut open = house.data.begin(&house.tenant(1)).await.expect("a transaction");
    schedules::put(&mut open, "night", &rarely(), &Zone::Utc, &Note::new("changed", 0), &ScheduleOptions::default())
        .await
        .expect("put");
    house.until("its time", "SELECT count(*) = 1 FROM insula.schedule WHERE tenant_id = 1 AND next_at < now()").await;
    house.came("1 second", "tenant_id = 2").await;
    house.until("the other's", "SELECT count(*) = 1 FROM app.done WHERE tenant_id = 2").await;
    house.came("1 second", "tenant_id = 2").await;
    house.until("the other's again", "SELECT count(*) = 2 FROM app.done WHERE tenant_id = 2").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, 0);
    open.commit().await.expect("committed");
    house.until("what it was changed to", "SELECT count(*) = 1 FROM app.done WHERE tenant_id = 1 AND what = 'changed'").await;
    assert_eq!(house.count("SELECT count(*) FROM insula.worker").await, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_where_code_makes_a_job_costs_that_schedule_alone() {
    let house = House::new(2).await;
    let jobs = Jobs::new().each_tenant("bad", rarely(), Zone::Utc, |_| -> Note { panic!("made wrong") }).each_tenant(
        "good",
        rarely(),
        Zone::Utc,
        |_| Note::new("good", 0),
    );
    let worker = house.worker(jobs);
    house.until("the good ones", "SELECT count(*) = 2 FROM insula.schedule WHERE name = 'good' AND next_at IS NOT NULL").await;
    house.came("1 second", "true").await;
    house.until("jobs", "SELECT count(*) = 2 FROM app.done WHERE what = 'good'").await;
    assert_eq!(house.count("SELECT count(*) FROM insula.schedule WHERE name = 'bad'").await, 0);
    worker.stop().await;
}

/// A database that one tenant has for itself is visited.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_s_own_database_is_visited_for_its_schedules() {
    let house = House::new(1).await;
    // Beside it, the cell has the pool that many share.
    let pool =
        insula_catalog::fake::database(house.server.cell().as_str(), insula_core::placement::POOL_DATABASE, 1).expect("names");
    house.source.change(|content| content.put_database(pool));
    house.catalog.refresh().await.expect("a refresh");
    let jobs = Jobs::new().each_tenant("digest", rarely(), Zone::Tenant, |_| Note::new("digest", 0));
    let config = WorkerConfig { databases: None, visit: Duration::from_millis(100), ..house.config() };
    house.put(1, "own", &rarely(), &Zone::Tenant, &ScheduleOptions::default()).await;
    let worker = house.worker_with(jobs, config);
    house.until("times", "SELECT count(*) = 2 FROM insula.schedule WHERE next_at IS NOT NULL").await;
    house.until("the visit to end", "SELECT count(*) = 0 FROM insula.worker").await;
    house.came("1 second", "true").await;
    house.until("both", "SELECT count(*) = 2 FROM app.done").await;
    worker.stop().await;
}

/// What tenants of the demonstration have.
#[test]
fn zones_of_settings_are_zones_of_the_planner() {
    for zone in ["UTC", "Europe/London", "Europe/Zurich", "America/Chicago", "Europe/Paris", "Etc/GMT+5"] {
        assert!(cron::Zone::find(zone).is_ok(), "{zone}");
    }
}
