//! The host side: sweeps reach each tenant once, whoever dies; a firing of the host is one worker's, and tried again when that dies.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use insula_core::{FeatureValue, TenantState};
use insula_jobs::{
    Cron, DatabaseName, Error, HostSide, JobError, Jobs, OffPeak, SweepOptions, TierOrder, Worker, WorkerConfig, Zone,
    for_each_tenant,
};

use crate::house::{House, Note};

impl House {
    pub(crate) fn host_side(&self) -> HostSide {
        let keys = insula_core::KeyRing::new([(self.server.cell(), self.server.cell_key())]);
        HostSide::new(self.catalog.clone(), keys, None, Some(vec![self.here()]))
    }

    fn here(&self) -> DatabaseName {
        DatabaseName { cell: self.server.cell(), database: self.database.as_str().into() }
    }

    /// Serves the schedules of the host.
    fn host(&self, jobs: Jobs) -> Worker {
        self.worker_with(jobs, WorkerConfig { anchor: Some(self.here()), ..self.config() })
    }

    async fn fire(&self) {
        sqlx::query("UPDATE insula.host_schedule SET next_at = clock_timestamp(), version = version + 1")
            .execute(&mut self.admin().await)
            .await
            .expect("its time");
    }
}

fn rarely() -> Cron {
    Cron::parse("0 0 29 2 *").expect("a pattern")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sweep_reaches_each_tenant_once_over_four_workers_and_kills() {
    let house = House::new(400).await;
    let host = house.host_side();
    let options = SweepOptions { batch: 10, pace: Some(200.0), ..SweepOptions::default() };
    for_each_tenant(&host, "reindex", &Note::new("reindex", 0), &options).await.expect("begun");
    let start = || house.worker(Jobs::new().with::<Note>());
    let mut workers: Vec<_> = (0..4).map(|_| start()).collect();
    for round in 1..=4 {
        house.until("some", &format!("SELECT count(*) >= {} FROM insula.sweep_mark", round * 60)).await;
        workers.remove(0).kill();
        workers.push(start());
        // Whoever began it and did not hear, begins it again.
        for_each_tenant(&host, "reindex", &Note::new("again", 0), &options).await.expect("begun");
    }
    house.until("the end", "SELECT state = 'done' FROM insula.sweep").await;
    house.empty().await;
    assert_eq!(house.count("SELECT count(DISTINCT id) FROM app.done").await, 400);
    assert_eq!(house.count("SELECT count(DISTINCT tenant_id) FROM app.done WHERE what = 'reindex'").await, 400);
    let state = host.sweep("reindex").await.expect("an answer").expect("a sweep");
    assert!(!state.open && !state.stopped, "{state:?}");
    assert_eq!((state.tenants, state.reached, state.skipped, state.queued, state.dead), (400, 400, 0, 0, 0));
    assert_eq!(host.sweep("other").await.expect("an answer"), None);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_goes_by_tier_keeps_its_pace_and_leaves_out_who_is_not_meant() {
    let house = House::new(12).await;
    for (no, plan) in [(9, "platinum"), (10, "platinum"), (11, "gold"), (12, "gold")] {
        house.change(no, |row| row.plan = plan.parse().expect("a name")).await;
    }
    for no in [1, 2, 3, 4, 9, 11, 12] {
        house
            .change(no, |row| {
                let plan = match no {
                    9 => "platinum",
                    11 | 12 => "gold",
                    _ => "bronze",
                };
                row.plan = plan.parse().expect("a name");
                row.features = [("beta".to_owned(), insula_core::Override::Value(FeatureValue::Switch(true)))].into();
            })
            .await;
    }
    let host = house.host_side();
    let options = SweepOptions { pace: Some(2.0), feature: Some("beta".to_owned()), ..SweepOptions::default() };
    for_each_tenant(&host, "beta", &Note::new("beta", 0), &options).await.expect("begun");
    let lowest = SweepOptions { order: TierOrder::LowestFirst, ..SweepOptions::default() };
    for_each_tenant(&host, "all", &Note::new("all", 0), &lowest).await.expect("begun");
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("the end", "SELECT bool_and(state = 'done') FROM insula.sweep").await;
    house.empty().await;
    let order = async |sweep: &str| -> String {
        let sql = "SELECT string_agg(m.tenant_id::text, ' ' ORDER BY m.at, j.id) FROM insula.sweep_mark m JOIN app.done j ON j.tenant_id = m.tenant_id AND j.what = m.sweep WHERE m.sweep = $1";
        sqlx::query_scalar(sql).bind(sweep).fetch_one(&mut house.admin().await).await.expect("an order")
    };
    assert_eq!(order("beta").await, "9 11 12 1 2 3 4");
    assert_eq!(order("all").await, "1 2 3 4 5 6 7 8 11 12 9 10");
    // Two in a second: seven of them, and those that were left out cost nothing.
    let took = house.count("SELECT (extract(epoch FROM max(at) - min(at)) * 1000)::bigint FROM insula.sweep_mark WHERE sweep = 'beta' AND NOT skipped").await;
    assert!((2_400..30_000).contains(&took), "{took} ms");
    let state = host.sweep("beta").await.expect("an answer").expect("a sweep");
    assert_eq!((state.tenants, state.reached, state.skipped), (12, 12, 5));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_waits_for_who_is_suspended_and_for_the_window_and_can_be_stopped() {
    let house = House::new(3).await;
    let host = house.host_side();
    house.change(2, |row| row.state = TenantState::Suspended).await;
    let no = house.tenant(2).no;
    insula_kit::set_tenant(&mut house.admin().await, no, 2, TenantState::Suspended).await.expect("suspended");
    for_each_tenant(&host, "mend", &Note::new("mend", 0), &SweepOptions::default()).await.expect("begun");
    let minute = house.count("SELECT (extract(hour FROM now() AT TIME ZONE 'UTC') * 60)::bigint").await;
    let minute = |hours: i64| u16::try_from((minute + hours * 60).rem_euclid(1_440)).expect("a minute");
    let later = SweepOptions { off_peak: Some(OffPeak::new(minute(6), minute(9)).expect("a window")), ..SweepOptions::default() };
    for_each_tenant(&host, "night", &Note::new("night", 0), &later).await.expect("begun");
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("two", "SELECT count(*) = 2 FROM app.done WHERE what = 'mend'").await;
    house.until("looks", "SELECT count(*) = 1 FROM insula.worker WHERE beats > 4").await;
    let state = host.sweep("mend").await.expect("an answer").expect("a sweep");
    assert!(state.open && state.reached == 2, "{state:?}");
    assert_eq!(house.count("SELECT count(*) FROM insula.sweep_mark WHERE sweep = 'night'").await, 0);
    assert!(host.stop_sweep("night").await.expect("an answer"));
    assert!(!host.stop_sweep("night").await.expect("an answer"));
    assert!(host.sweep("night").await.expect("an answer").expect("a sweep").stopped);
    worker.stop().await;
    // One that came later is not meant.
    sqlx::query("INSERT INTO insula.tenant (no, epoch) VALUES (9, 1)").execute(&mut house.admin().await).await.expect("a tenant");
    house.change(2, |row| (row.state, row.placement.epoch) = (TenantState::Active, 3)).await;
    insula_kit::set_tenant(&mut house.admin().await, no, 3, TenantState::Active).await.expect("resumed");
    let worker = house.worker(Jobs::new().with::<Note>());
    house.until("the end", "SELECT state = 'done' FROM insula.sweep WHERE name = 'mend'").await;
    house.until("the third", "SELECT count(*) = 3 FROM app.done WHERE what = 'mend'").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 3);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_code_declares_is_begun_where_its_workers_come_and_once() {
    let house = House::new(6).await;
    let jobs = || Jobs::new().sweep("v2", &Note::new("v2", 0), &SweepOptions::default()).expect("a sweep");
    let workers = [house.worker(jobs()), house.worker(jobs())];
    house.until("the end", "SELECT count(*) = 1 FROM insula.sweep WHERE state = 'done'").await;
    house.empty().await;
    for worker in workers {
        worker.stop().await;
    }
    let worker = house.worker(jobs());
    house.until("looks", "SELECT count(*) = 1 FROM insula.worker WHERE beats > 4").await;
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 6);
    assert_eq!(house.count("SELECT count(DISTINCT tenant_id) FROM app.done").await, 6);
    worker.stop().await;
    let large = Jobs::new().sweep("x", &Note::new(&"x".repeat(300_000), 0), &SweepOptions::default());
    assert!(matches!(large, Err(Error::TooLarge { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_makes_no_sense_is_refused() {
    let house = House::new(1).await;
    let host = house.host_side();
    let note = Note::new("x", 0);
    let refused =
        async |name: &str, options: SweepOptions| for_each_tenant(&host, name, &note, &options).await.expect_err("refused");
    assert!(matches!(refused("", SweepOptions::default()).await, Error::Options(_)));
    assert!(matches!(refused("x", SweepOptions { pace: Some(0.0), ..SweepOptions::default() }).await, Error::Options(_)));
    assert!(matches!(refused("x", SweepOptions { pace: Some(f64::NAN), ..SweepOptions::default() }).await, Error::Options(_)));
    assert!(matches!(refused("x", SweepOptions { batch: 0, ..SweepOptions::default() }).await, Error::Options(_)));
    let large = for_each_tenant(&host, "x", &Note::new(&"x".repeat(300_000), 0), &SweepOptions::default()).await;
    assert!(matches!(large, Err(Error::TooLarge { .. })));
    // A cell that is away is said, and nothing is begun there.
    let away = DatabaseName { cell: "elsewhere".parse().expect("a name"), database: "d".into() };
    let keys = insula_core::KeyRing::new([(house.server.cell(), house.server.cell_key())]);
    let some = HostSide::new(house.catalog.clone(), keys, None, Some(vec![away, house.here()]));
    let failed = for_each_tenant(&some, "some", &note, &SweepOptions::default()).await.expect_err("one is away");
    assert!(matches!(failed, Error::Unreachable { .. }));
    assert!(host.sweep("some").await.expect("an answer").is_some(), "the others have it");
}

/// What a schedule of the host saw: firings and attempts.
type Seen = Arc<Mutex<Vec<(i64, i32)>>>;

fn counted(seen: &Seen, millis: u64) -> Jobs {
    let seen = seen.clone();
    Jobs::new().host("bills", rarely(), Zone::Utc, move |context| {
        let seen = seen.clone();
        async move {
            assert_eq!(context.name(), "bills");
            assert!(insula_core::scope::current().is_err(), "nobody's");
            tokio::time::sleep(Duration::from_millis(millis)).await;
            seen.lock().expect("a lock").push((context.firing().timestamp_micros(), context.attempt()));
            Ok(())
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_firing_of_the_host_is_once_over_four_workers() {
    let house = House::new(1).await;
    let seen = Seen::default();
    let workers: Vec<_> = (0..4).map(|_| house.host(counted(&seen, 5))).collect();
    house.until("a time", "SELECT count(*) = 1 FROM insula.host_schedule WHERE next_at > now()").await;
    for round in 1..=6 {
        house.fire().await;
        house.until("its end", "SELECT firing IS NULL AND next_at > now() FROM insula.host_schedule").await;
        assert_eq!(seen.lock().expect("a lock").len(), round);
    }
    let mut firings = seen.lock().expect("a lock").clone();
    firings.dedup_by_key(|(firing, _)| *firing);
    assert_eq!(firings.len(), 6, "each has its own time");
    assert!(firings.iter().all(|(_, attempt)| *attempt == 1));
    assert_eq!(house.count("SELECT count(*) FROM insula.host_schedules() WHERE error IS NULL AND last_at IS NOT NULL").await, 1);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_paused_does_not_come_until_it_is_resumed() {
    let house = House::new(1).await;
    let seen = Seen::default();
    let worker = house.host(counted(&seen, 0));
    house.until("a time", "SELECT count(*) = 1 FROM insula.host_schedule WHERE next_at > now()").await;
    let name: String =
        sqlx::query_scalar("SELECT name FROM insula.host_schedule").fetch_one(&mut house.admin().await).await.expect("a name");
    let pause = |paused: bool| format!("SELECT insula.host_pause('{name}', {paused})::int::bigint");
    assert_eq!(house.count("SELECT insula.host_pause('another', true)::int::bigint").await, 0);
    assert_eq!(house.count(&pause(true)).await, 1);
    assert_eq!(house.count("SELECT count(*) FROM insula.host_schedules() WHERE paused AND next_at IS NULL").await, 1);
    house.fire().await;
    let due = format!("SELECT count(*) FROM insula.host_due(ARRAY['{name}'])");
    assert_eq!(house.count(&due).await, 0);
    // A worker that knew of it before comes too late.
    let late = format!("SELECT count(*) FROM insula.host_take((SELECT max(no) FROM insula.worker), '{name}', 1, NULL)");
    assert_eq!(house.count(&late).await, 0);
    // Nothing is made up for.
    assert_eq!(house.count(&pause(false)).await, 1);
    house
        .until(
            "a time again",
            "SELECT count(*) = 1 FROM insula.host_schedule WHERE NOT paused AND next_at > now() + interval '1 second'",
        )
        .await;
    assert!(seen.lock().expect("a lock").is_empty());
    house.fire().await;
    house.until("its end", "SELECT firing IS NULL AND next_at > now() FROM insula.host_schedule").await;
    assert_eq!(seen.lock().expect("a lock").len(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_paused_before_it_is_here_is_paused_when_it_comes() {
    let house = House::new(1).await;
    let seen = Seen::default();
    let say = |paused: bool, told: i64| format!("SELECT count(*) FROM insula.host_pause('bills', {paused}, {told})");
    house.count(&say(true, 5)).await;
    assert_eq!(house.count("SELECT count(*) FROM insula.host_schedules()").await, 0, "nobody has kept it yet");
    let worker = house.host(counted(&seen, 0));
    house.until("it", "SELECT count(*) = 1 FROM insula.host_schedules() WHERE paused AND cron <> ''").await;
    house.fire().await;
    assert_eq!(house.count("SELECT count(*) FROM insula.host_due('{bills}')").await, 0);
    // Who comes late with what was said before is not heard.
    house.count(&say(false, 4)).await;
    assert_eq!(house.count("SELECT count(*) FROM insula.host_schedules() WHERE paused").await, 1);
    house.count(&say(false, 6)).await;
    house.until("a time", "SELECT count(*) = 1 FROM insula.host_schedule WHERE NOT paused AND next_at > now()").await;
    house.count(&say(true, 5)).await;
    assert_eq!(house.count("SELECT count(*) FROM insula.host_schedules() WHERE NOT paused").await, 1);
    worker.stop().await;
    // One that never came is not left behind when it is let go on.
    house.count("SELECT count(*) FROM insula.host_pause('other', true, 1)").await;
    house.count("SELECT count(*) FROM insula.host_pause('other', false, 2)").await;
    assert_eq!(house.count("SELECT count(*) FROM insula.host_schedule").await, 1);
    assert!(seen.lock().expect("a lock").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_one_is_run_again_and_a_stopped_one_is_waited_for() {
    let house = House::new(1).await;
    let seen = Seen::default();
    let doomed = house.host(counted(&seen, 60_000));
    house.until("a time", "SELECT count(*) = 1 FROM insula.host_schedule WHERE next_at > now()").await;
    house.fire().await;
    house.until("it to be at work", "SELECT attempt = 1 AND worker IS NOT NULL FROM insula.host_schedule").await;
    let firing = house.count("SELECT (extract(epoch FROM firing) * 1000000)::bigint FROM insula.host_schedule").await;
    doomed.kill();
    // Another firing comes meanwhile: it waits for this one.
    house.fire().await;
    let next = house.host(counted(&seen, 300));
    house.until("the second try", "SELECT attempt = 2 FROM insula.host_schedule").await;
    next.stop().await;
    assert_eq!(*seen.lock().expect("a lock"), [(firing, 2)], "it was waited for, and its end was said");
    assert_eq!(house.count("SELECT count(*) FROM insula.host_schedule WHERE firing IS NULL AND next_at <= now()").await, 1);
    let last = house.host(counted(&seen, 1));
    house.until("the other firing", "SELECT firing IS NULL AND next_at > now() FROM insula.host_schedule").await;
    let seen = seen.lock().expect("a lock").clone();
    assert!(seen.len() == 2 && seen[1].0 > firing && seen[1].1 == 1, "{seen:?}");
    last.stop().await;
}

static TRIES: AtomicI64 = AtomicI64::new(0);
/// Whether it was seen that it had panicked.
static SEEN: AtomicBool = AtomicBool::new(false);

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_panics_of_the_host_are_tried_again_and_an_old_holder_is_not_believed() {
    let house = House::new(1).await;
    let jobs = Jobs::new()
        .host("fails", rarely(), Zone::Utc, |_| async {
            match TRIES.fetch_add(1, Ordering::SeqCst) {
                0 => Err(JobError::Later { delay: Duration::from_millis(10), reason: "the first".to_owned() }),
                _ if !SEEN.load(Ordering::SeqCst) => panic!("the second"),
                _ => Ok(()),
            }
        })
        .host("dead", rarely(), Zone::Utc, |_| async { Err(JobError::dead("of no use")) });
    let worker = house.host(jobs);
    house.until("times", "SELECT count(*) = 2 FROM insula.host_schedule WHERE next_at > now()").await;
    house.fire().await;
    house
        .until(
            "the panic",
            "SELECT count(*) = 1 FROM insula.host_schedule WHERE name = 'fails' AND attempt >= 2 AND error = 'it panicked'",
        )
        .await;
    SEEN.store(true, Ordering::SeqCst);
    house
        .until(
            "one of no use",
            "SELECT count(*) = 1 FROM insula.host_schedule WHERE name = 'dead' AND error = 'of no use' AND firing IS NULL",
        )
        .await;
    sqlx::query("UPDATE insula.host_schedule SET retry_at = now() - interval '1 second' WHERE firing IS NOT NULL")
        .execute(&mut house.admin().await)
        .await
        .expect("now");
    house
        .until(
            "the third",
            "SELECT count(*) = 1 FROM insula.host_schedule WHERE name = 'fails' AND firing IS NULL AND error IS NULL",
        )
        .await;
    assert!(TRIES.load(Ordering::SeqCst) >= 3);
    worker.stop().await;
    // By hand: taken by one, given up, taken by another; the first one's word is worth nothing.
    let mut admin = house.admin().await;
    let begin = "SELECT insula.worker_begin('x', 60000)";
    let a: i64 = sqlx::query_scalar(begin).fetch_one(&mut admin).await.expect("a number");
    let b: i64 = sqlx::query_scalar(begin).fetch_one(&mut admin).await.expect("a number");
    house.fire().await;
    let take =
        "SELECT attempt FROM insula.host_take($1, 'fails', (SELECT version FROM insula.host_schedule WHERE name = 'fails'), 0)";
    let taken: Option<i32> = sqlx::query_scalar(take).bind(a).fetch_optional(&mut admin).await.expect("an answer");
    assert_eq!(taken, Some(1));
    assert_eq!(house.count("SELECT count(*) FROM insula.host_due('{fails}')").await, 0, "it is held");
    sqlx::query("SELECT insula.worker_bury($1, 0)").bind(a).execute(&mut admin).await.expect("given up");
    assert_eq!(house.count("SELECT count(*) FROM insula.host_due('{fails}')").await, 1);
    let taken: Option<i32> = sqlx::query_scalar(take).bind(a).fetch_optional(&mut admin).await.expect("an answer");
    assert_eq!(taken, None, "who was given up takes nothing");
    let taken: Option<i32> = sqlx::query_scalar(take).bind(b).fetch_optional(&mut admin).await.expect("an answer");
    assert_eq!(taken, Some(2));
    for (worker, attempt, believed) in [(a, 1, false), (a, 2, false), (b, 1, false), (b, 2, true)] {
        let end = "SELECT insula.host_end($1, 'fails', $2, NULL, NULL)";
        let ended: bool = sqlx::query_scalar(end).bind(worker).bind(attempt).fetch_one(&mut admin).await.expect("an answer");
        assert_eq!(ended, believed, "{worker} {attempt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_of_the_host_sweeps_and_only_its_anchor_s_workers_run_it() {
    let house = House::new(5).await;
    let jobs = Jobs::new().with::<Note>().giving(7_u8).host("monthly", rarely(), Zone::Utc, |context| async move {
        assert_eq!((context.tenants(), context.given::<u8>()), (5, Some(&7)));
        Ok(context.for_each_tenant(&Note::new("monthly", 0), &SweepOptions::default()).await?)
    });
    let other = house.worker(jobs.clone());
    house.until("looks", "SELECT count(*) = 1 FROM insula.worker WHERE beats > 4").await;
    assert_eq!(house.count("SELECT count(*) FROM insula.host_schedule").await, 0, "its anchor is the pool of the first cell");
    other.stop().await;
    let worker = house.host(jobs);
    house.until("a time", "SELECT count(*) = 1 FROM insula.host_schedule WHERE next_at > now()").await;
    house.fire().await;
    house.until("everybody's", "SELECT count(DISTINCT tenant_id) = 5 FROM app.done WHERE what = 'monthly'").await;
    house.until("the end", "SELECT state = 'done' AND name LIKE 'monthly:20%Z' FROM insula.sweep").await;
    worker.stop().await;
}
