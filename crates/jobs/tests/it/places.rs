//! Whose jobs run here, and where: tenants that are not known, move, live elsewhere or are deleted; and how workers hear of work.

use std::time::Duration;

use insula_core::context::Trace;
use insula_core::{MoveState, TenantContext, TenantState};
use insula_jobs::schedules::{self, ScheduleOptions};
use insula_jobs::{
    Cron, Enqueue, Job, JobContext, JobError, Jobs, KindRules, OffPeak, SweepOptions, WorkerConfig, Zone, for_each_tenant, send,
    send_all, state,
};
use serde::{Deserialize, Serialize};

use crate::house::{House, Note};

/// Tenant 1 is not to be had, as the catalog says and the database does not know yet: its jobs go back, uncounted, and run when it is.
async fn goes_back_and_runs_later(away: impl AsyncFnOnce(&House, &TenantContext), back: impl AsyncFnOnce(&House)) {
    let house = House::new(2).await;
    let (one, two) = (house.tenant(1), house.tenant(2));
    let notes: Vec<Note> = (0..5).map(|n| Note::new(&n.to_string(), 0)).collect();
    let attempts = Enqueue { attempts: Some(1), ..Enqueue::default() };
    send_all(&house.data, &one, &notes, &attempts).await.expect("sent");
    away(&house, &one).await;
    house.catalog.refresh().await.expect("a refresh");
    let worker = house.worker(Jobs::new().with::<Note>());
    send_all(&house.data, &two, &notes, &Enqueue::default()).await.expect("sent");
    house.until("the other's jobs", "SELECT count(*) = 5 FROM app.done WHERE tenant_id = 2").await;
    let gone_back =
        "SELECT count(*) = 5 FROM insula.job WHERE tenant_id = 1 AND state = 'l' AND attempts - attempt = 1 AND error IS NULL";
    house.until("all of its own to have gone back, with the attempt that they had", gone_back).await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, 0);
    assert_eq!(house.count("SELECT failures::bigint FROM insula.lane WHERE tenant_id = 1").await, 0, "nothing has failed");
    back(&house).await;
    house.catalog.refresh().await.expect("a refresh");
    // They would be looked at again in some seconds.
    sqlx::query("UPDATE insula.job SET due = now() WHERE state = 'l'").execute(&mut house.admin().await).await.expect("due");
    house.empty().await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 1").await, 5);
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end").await, 0, "none is dead");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_tenant_that_the_worker_does_not_know_yet_go_back_and_run_when_it_does() {
    let kept = std::sync::Mutex::new(None);
    let away = async |house: &House, one: &TenantContext| {
        let route = house.catalog.by_id(one.tenant).expect("a route").arc();
        *kept.lock().expect("unpoisoned") = Some(route);
        house.source.change(|content| content.remove_tenant(one.tenant));
    };
    let back = async |house: &House| {
        let route = kept.lock().expect("unpoisoned").take().expect("a route");
        let mut row = insula_catalog::fake::tenant("t1", 1, "bronze", "main").expect("names");
        (row.id, row.placement) = (route.id, insula_core::Placement::clone(&route.placement));
        house.source.change(|content| content.put_tenant(row));
    };
    goes_back_and_runs_later(away, back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_tenant_that_lives_elsewhere_go_back_and_run_when_it_has_come_back() {
    let away =
        async |house: &House, _: &TenantContext| house.change(1, |row| row.placement.database = "d0123456789abcdef".into()).await;
    let back = async |house: &House| {
        let here = house.database.as_str().into();
        house.change(1, |row| row.placement.database = here).await;
    };
    goes_back_and_runs_later(away, back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_tenant_in_the_midst_of_a_move_go_back_and_run_when_it_is_over() {
    let away = async |house: &House, _: &TenantContext| house.change(1, |row| row.placement.state = MoveState::Cutover).await;
    let back = async |house: &House| house.change(1, |row| row.placement.state = MoveState::Final).await;
    goes_back_and_runs_later(away, back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_deleted_tenant_never_run() {
    let house = House::new(3).await;
    let notes: Vec<Note> = (0..5).map(|n| Note::new(&n.to_string(), 0)).collect();
    for no in 1..=3 {
        send_all(&house.data, &house.tenant(no), &notes, &Enqueue::default()).await.expect("sent");
    }
    // One as the catalog says, one as the database does.
    house.change(1, |row| row.state = TenantState::Deleted).await;
    sqlx::query("DELETE FROM insula.tenant WHERE no = 2").execute(&mut house.admin().await).await.expect("forgotten");
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("the others' jobs", "SELECT count(*) = 5 FROM app.done WHERE tenant_id = 3").await;
    let gone_back = "SELECT count(*) = 5 FROM insula.job WHERE tenant_id = 1 AND state = 'l' AND attempts - attempt = 50";
    house.until("some to have gone back", gone_back).await;
    for _ in 0..3 {
        sqlx::query("UPDATE insula.job SET due = now() WHERE state = 'l'").execute(&mut house.admin().await).await.expect("due");
        house.until("them to have gone back again", gone_back).await;
    }
    assert_eq!(house.count("SELECT count(*) FROM insula.job WHERE tenant_id = 2 AND attempt = 0").await, 5, "never begun with");
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id < 3").await, 0);
    worker.stop().await;
}

/// Answers in which trace it runs.
#[derive(Serialize, Deserialize)]
struct Traced;

impl Job for Traced {
    const KIND: &'static str = "traced";
    type Output = Option<String>;
    fn rules() -> KindRules {
        KindRules { retention: Duration::from_secs(600), ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<Self::Output, JobError> {
        Ok(context.tenant().trace.as_ref().map(|trace| trace.parent.to_string()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_with_the_trace_of_whoever_asked_for_it() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let house = House::new(1).await;
    let asked = TenantContext { trace: Trace::read(PARENT, None).map(std::sync::Arc::new), ..house.tenant(1) };
    let traced = send(&house.data, &asked, &Traced, &Enqueue::default()).await.expect("sent").expect("new");
    assert_eq!(house.count(&format!("SELECT count(*) FROM insula.job WHERE trace = '{PARENT}'")).await, 1);
    let other = send(&house.data, &house.tenant(1), &Traced, &Enqueue::default()).await.expect("sent").expect("new");
    let worker = house.worker(Jobs::new().with::<Traced>());
    house.empty().await;
    let mut tx = house.data.begin(&asked).await.expect("a transaction");
    let end = state(&mut tx, traced).await.expect("a state").expect("kept");
    let ran = end.result.unwrap_or_else(|| panic!("{:?}", end.error));
    let ran = ran.as_str().expect("a trace");
    assert_eq!(ran.split('-').nth(1), PARENT.split('-').nth(1), "the same trace: {ran}");
    let ran = state(&mut tx, other).await.expect("a state").expect("kept").result;
    assert!(!format!("{ran:?}").contains("4bf92f3577b34da6a3ce929d0e0e4736"), "nobody else's: {ran:?}");
    worker.stop().await;
}

/// By the clock of the one it is day when by the other's it is night.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_the_day_is_by_each_tenant_s_own_clock() {
    let house = House::new(2).await;
    // Twelve hours apart, at whatever time this runs.
    for (no, zone) in [(1, "Etc/GMT"), (2, "Etc/GMT-12")] {
        house.change(no, |row| row.settings.time_zone = zone.parse().expect("a zone")).await;
    }
    let minute = house.count("SELECT (extract(hour FROM now() AT TIME ZONE 'UTC') * 60)::bigint").await;
    let minute = |hours: i64| u16::try_from((minute + hours * 60).rem_euclid(1_440)).expect("a minute");
    let window = OffPeak::new(minute(-3), minute(3)).expect("a window");
    let options = SweepOptions { off_peak: Some(window), ..SweepOptions::default() };
    for_each_tenant(&house.host_side(), "night", &Note::new("swept", 0), &options).await.expect("begun");
    let pattern = Cron::parse("30 * * * *").expect("a pattern");
    for no in [1, 2] {
        let mut tx = house.data.begin(&house.tenant(no)).await.expect("a transaction");
        let options = ScheduleOptions { off_peak: Some(window), ..ScheduleOptions::default() };
        schedules::put(&mut tx, "night", &pattern, &Zone::Tenant, &Note::new("fired", 0), &options).await.expect("put");
        tx.commit().await.expect("committed");
    }
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("whose night it is", "SELECT count(*) = 1 FROM app.done WHERE what = 'swept' AND tenant_id = 1").await;
    let next = "SELECT count(*) = 2 FROM insula.schedule WHERE CASE tenant_id WHEN 1 THEN next_at < now() + interval '61 minutes'
                    ELSE next_at BETWEEN now() + interval '7 hours' AND now() + interval '10 hours' END";
    house.until("the one's to come within the hour, the other's in its night", next).await;
    house.until("looks", "SELECT count(*) = 1 FROM insula.worker WHERE beats > 4").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done WHERE tenant_id = 2").await, 0);
    worker.stop().await;
}

/// A worker that would look by itself in an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_notification_wakes_a_worker_that_sleeps() {
    let house = House::new(2).await;
    let config = WorkerConfig { poll: Duration::from_secs(3_600), ..house.config() };
    let worker = house.worker_with(Jobs::new().with::<Note>(), config);
    let asleep = "SELECT pg_sequence_last_value('insula.asleep') = 2
        AND EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %')
        AND EXISTS (SELECT FROM insula.worker WHERE beats > 1)";
    for n in 1..=3 {
        house.until("it to sleep", asleep).await;
        send(&house.data, &house.tenant(1 + n % 2), &Note::new("x", 0), &Enqueue::default()).await.expect("sent");
        house.until("it to wake", &format!("SELECT count(*) = {n} FROM app.done")).await;
        house.empty().await;
    }
    worker.stop().await;
}
