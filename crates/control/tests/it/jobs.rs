//! Jobs as operators see them: in the queues of real databases, of the tenant that was named and no other.

use std::time::{Duration, Instant};

use insula_api::job::{Job, JobQuery, JobState};
use insula_control::model::{AuditFilter, PageRequest, Tenant};
use insula_core::{Isolation, Kind};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::house::House;

/// A tenant, and the administrator in its database.
struct Stage {
    tenant: Tenant,
    admin: PgConnection,
}

impl Stage {
    async fn of(house: &House, slug: &str, isolation: Isolation) -> Self {
        let tenant = house.tenant(slug, isolation).await;
        let admin = house.server.admin(&tenant.placement.as_ref().unwrap().database).await;
        Self { tenant, admin }
    }

    fn no(&self) -> i64 {
        self.tenant.no.get()
    }

    async fn enqueue(&mut self, kind: &str, key: Option<&str>) -> Uuid {
        let id = Uuid::now_v7();
        sqlx::query(
            "WITH a AS (INSERT INTO insula.arrival (tenant_id, lane, rank, due) VALUES ($1, '', 0, now()))
             INSERT INTO insula.job (tenant_id, id, due, created_at, kind, key, principal, body)
             VALUES ($1, $2, clock_timestamp(), clock_timestamp(), $3, $4, 'ada', '{\"secret\": \"of the tenant\"}')",
        )
        .bind(self.no())
        .bind(id)
        .bind(kind)
        .bind(key)
        .execute(&mut self.admin)
        .await
        .unwrap();
        id
    }

    /// A worker begins.
    async fn worker(&mut self, name: &str) -> i64 {
        sqlx::query_scalar("SELECT insula.worker_begin($1, 15000)").bind(name).fetch_one(&mut self.admin).await.unwrap()
    }

    /// It takes everything that it may.
    async fn take(&mut self, worker: i64) -> Vec<(Uuid, i32)> {
        let sql = "SELECT id, attempt FROM insula.work($1, '{}', '{}', '{}', 100)";
        sqlx::query_as(sql).bind(worker).fetch_all(&mut self.admin).await.unwrap()
    }

    /// An attempt ends so.
    async fn settle(&mut self, worker: i64, (id, attempt): (Uuid, i32), outcome: &str, delay_ms: i64) {
        let end = json!([{"t": self.no(), "i": id, "a": attempt, "l": "", "o": outcome, "d": delay_ms, "e": "it failed"}]);
        sqlx::query("SELECT insula.settle($1, $2)").bind(worker).bind(end).execute(&mut self.admin).await.unwrap();
    }
}

async fn list(house: &House, tenant: &str, state: Option<JobState>, kind: Option<&str>) -> Vec<Job> {
    let query = JobQuery { state, kind: kind.map(str::to_owned), ..JobQuery::default() };
    house.control.jobs("ops", tenant, &query, &PageRequest::default()).await.unwrap().items
}

fn ids(jobs: &[Job]) -> Vec<Uuid> {
    jobs.iter().map(|job| job.id).collect()
}

async fn actions(house: &House, tenant: &Tenant) -> Vec<(String, String)> {
    let filter = AuditFilter { tenant: Some(tenant.id), action: None };
    let lines = house.control.audit(&filter, &PageRequest::default()).await.unwrap().items;
    let ours = lines.into_iter().filter(|line| !line.action.starts_with("tenant."));
    ours.map(|line| (line.action, line.target)).collect()
}

async fn a_life(house: &House, slug: &str, isolation: Isolation) {
    let control = &house.control;
    let mut stage = Stage::of(house, slug, isolation).await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(stage.enqueue(if n % 2 == 0 { "export" } else { "digest" }, None).await);
    }
    let newest: Vec<Uuid> = made.iter().rev().copied().collect();
    assert_eq!(ids(&list(house, slug, None, None).await), newest);
    assert_eq!(ids(&list(house, slug, Some(JobState::Waiting), Some("digest")).await), [made[3], made[1]]);
    assert!(list(house, slug, Some(JobState::Dead), None).await.is_empty());

    // Page by page.
    let mut page = PageRequest { after: None, limit: 2 };
    let mut seen = Vec::new();
    loop {
        let found = control.jobs("ops", slug, &JobQuery::default(), &page).await.unwrap();
        seen.extend(ids(&found.items));
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, newest);
    page.after = Some("x".to_owned());
    assert_eq!(control.jobs("ops", slug, &JobQuery::default(), &page).await.unwrap_err().kind(), Kind::Invalid);

    // One waits and is cancelled: over at once. What is the tenant's own is in no list.
    let cancelled = control.cancel_job("ops", slug, made[4]).await.unwrap();
    assert_eq!((cancelled.state, cancelled.principal.as_deref()), (JobState::Cancelled, Some("ada")));
    assert!(list(house, slug, None, None).await.iter().all(|job| job.principal.is_none() && job.key.is_none()));
    assert_eq!(control.cancel_job("ops", slug, made[4]).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(control.retry_job("ops", slug, made[4]).await.unwrap_err().kind(), Kind::Conflict);

    // Four run; one is told to stop, one fails for good, one for now, one ends well and is not kept.
    let worker = stage.worker("tests").await;
    let taken = stage.take(worker).await;
    assert_eq!(taken.len(), 4);
    let running = list(house, slug, Some(JobState::Running), None).await;
    assert!(running.len() == 4 && running.iter().all(|job| job.worker == Some(worker) && job.started_at.is_some()));
    let told = control.cancel_job("ops", slug, made[0]).await.unwrap();
    assert!(told.state == JobState::Running && told.cancelling, "{told:?}");
    let stopping: Vec<Uuid> = list(house, slug, None, None).await.iter().filter(|job| job.cancelling).map(|job| job.id).collect();
    assert_eq!(stopping, [made[0]], "the list says who was told to stop");
    assert_eq!(control.retry_job("ops", slug, made[0]).await.unwrap_err().kind(), Kind::Conflict);
    let of = |id: Uuid| *taken.iter().find(|(known, _)| *known == id).unwrap();
    stage.settle(worker, of(made[1]), "dead", 0).await;
    stage.settle(worker, of(made[2]), "retry", 3_600_000).await;
    stage.settle(worker, of(made[3]), "done", 0).await;
    assert_eq!(control.job("ops", slug, made[3]).await.unwrap_err().kind(), Kind::NotFound);
    let dead = list(house, slug, Some(JobState::Dead), None).await;
    assert_eq!((ids(&dead), dead[0].error.as_deref()), (vec![made[1]], Some("it failed")));
    assert_eq!(control.job("ops", slug, made[2]).await.unwrap().state, JobState::Later);

    // Tried again: at once.
    for id in [made[1], made[2]] {
        assert_eq!(control.retry_job("ops", slug, id).await.unwrap().state, JobState::Waiting);
    }
    let again = stage.take(worker).await;
    let mut tried: Vec<Uuid> = again.iter().map(|(id, _)| *id).collect();
    tried.sort();
    assert_eq!(tried, [made[1], made[2]], "what was to be tried again does not run");
    assert!(again.iter().all(|(_, attempt)| *attempt == 2), "the fence goes on counting: {again:?}");

    // Many dead ones: all at once, then none.
    for end in again {
        stage.settle(worker, end, "dead", 0).await;
    }
    assert_eq!(control.replay_dead("ops", slug).await.unwrap(), 2);
    for end in stage.take(worker).await {
        stage.settle(worker, end, "dead", 0).await;
    }
    let past = chrono::Utc::now() - chrono::TimeDelta::hours(1);
    assert_eq!(control.purge_dead("ops", slug, Some(past)).await.unwrap(), 0);
    assert_eq!(control.purge_dead("ops", slug, None).await.unwrap(), 2);
    assert!(list(house, slug, Some(JobState::Dead), None).await.is_empty());

    // The body is told to whoever may see it, and the audit log knows: each time, and of those who looked at the rest once an hour.
    control.job("eve", slug, made[4]).await.unwrap();
    control.jobs("eve", slug, &JobQuery::default(), &PageRequest::default()).await.unwrap();
    let body = control.job_body("ops", slug, made[4]).await.unwrap();
    assert_eq!((body.body["secret"].as_str(), body.result), (Some("of the tenant"), None));
    let done: Vec<String> = actions(house, &stage.tenant).await.into_iter().map(|(action, _)| action).collect();
    let expected = [
        "job.body",
        "job.read",
        "dead.purge",
        "dead.purge",
        "dead.replay",
        "job.retry",
        "job.retry",
        "job.cancel",
        "job.cancel",
        "job.read",
    ];
    assert_eq!(done, expected);
}

#[tokio::test]
async fn jobs_are_seen_cancelled_and_tried_again() {
    let mut house = House::start().await;
    a_life(&house, "in-rows", Isolation::Row).await;
    a_life(&house, "in-schema", Isolation::Schema).await;
    a_life(&house, "by-itself", Isolation::Database).await;
    house.stop().await;
}

#[tokio::test]
async fn a_tenants_jobs_are_nobody_elses() {
    let mut house = House::start().await;
    let mut acme = Stage::of(&house, "acme", Isolation::Row).await;
    let globex = Stage::of(&house, "globex", Isolation::Row).await;
    let job = acme.enqueue("export", Some("once")).await;
    let control = &house.control;
    assert!(list(&house, "globex", None, None).await.is_empty());
    for outcome in [
        control.job("ops", "globex", job).await.err(),
        control.job_body("ops", "globex", job).await.err(),
        control.cancel_job("ops", "globex", job).await.err(),
        control.retry_job("ops", "globex", job).await.err(),
    ] {
        assert_eq!(outcome.map(|error| error.kind()), Some(Kind::NotFound));
    }
    assert_eq!(control.replay_dead("ops", "globex").await.unwrap(), 0);
    assert_eq!(
        control.jobs("ops", "nobody", &JobQuery::default(), &PageRequest::default()).await.unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(control.job("ops", "acme", job).await.unwrap().key.as_deref(), Some("once"));
    let refused = actions(&house, &globex.tenant).await;
    let done = |(action, _): &(String, String)| ["dead.replay", "job.read"].contains(&action.as_str());
    assert!(refused.iter().all(done), "refusals are no deeds: {refused:?}");

    // A dead letter whose key a living job has stays dead.
    let worker = acme.worker("tests").await;
    let taken = acme.take(worker).await;
    acme.settle(worker, taken[0], "dead", 0).await;
    acme.enqueue("export", Some("once")).await;
    let refused = control.retry_job("ops", "acme", job).await.unwrap_err();
    assert!(refused.kind() == Kind::Conflict && refused.to_string().contains("with the key of"), "{refused}");
    house.stop().await;
}

#[tokio::test]
async fn a_cell_that_is_away_is_named_within_seconds() {
    let mut house = House::start().await;
    let mut stage = Stage::of(&house, "acme", Isolation::Row).await;
    let job = stage.enqueue("export", None).await;
    // Nobody listens there; a closed port refuses, and one that swallows would be waited for.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = i32::from(gone.local_addr().unwrap().port());
    let mut catalog = house.server.admin("insula_catalog").await;
    sqlx::query("UPDATE catalog.cell SET port = $1").bind(port).execute(&mut catalog).await.unwrap();
    let cell = house.server.cell();
    let started = Instant::now();
    for error in [
        house.control.jobs("ops", "acme", &JobQuery::default(), &PageRequest::default()).await.err(),
        house.control.workers(Some(&cell)).await.err(),
    ] {
        let error = error.expect("refused");
        assert!(error.kind() == Kind::Unavailable && error.public().contains(cell.as_str()), "{error}");
    }
    // Three waits of eight seconds, and not one for ever.
    assert!(started.elapsed() < crate::house::LONG, "{:?}", started.elapsed());
    let all = house.control.workers(None).await.unwrap();
    assert_eq!((all.items.len(), all.away), (0, vec![cell.clone()]));
    // The whole at a glance is told without it.
    let started = Instant::now();
    let status = house.control.status().await.unwrap();
    assert!(!status.workers.contains_key(cell.as_str()) && started.elapsed() < Duration::from_secs(8), "{status:?}");

    drop(gone);
    let refused = house.control.cancel_job("ops", "acme", job).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable, "{refused}");
    assert!(actions(&house, &stage.tenant).await.is_empty(), "what was not done is in the log");
    sqlx::query("UPDATE catalog.cell SET port = $1").bind(i32::from(house.server.port())).execute(&mut catalog).await.unwrap();
    assert_eq!(house.control.cancel_job("ops", "acme", job).await.unwrap().state, JobState::Cancelled);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_lot_has_a_part_of_a_cells_connections() {
    let mut house = House::start().await;
    house.tenant("acme", Isolation::Row).await;
    // Whoever lists jobs waits for this one.
    let mut holder = house.server.admin("insula_pool").await;
    sqlx::raw_sql("BEGIN; LOCK TABLE insula.job IN ACCESS EXCLUSIVE MODE").execute(&mut holder).await.unwrap();
    let mut watcher = house.server.admin("insula_pool").await;
    let mut connected = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%insula.job_list%' AND state = 'active' AND pid <> pg_backend_pid()";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut watcher).await.unwrap()
    };
    let ask = || {
        let control = house.control.clone();
        async move { control.jobs("eve", "acme", &JobQuery::default(), &PageRequest::default()).await.map(|_| ()) }
    };
    let crowd = || (0..40).map(|_| ask()).collect::<tokio::task::JoinSet<_>>();
    let mut most = 0;
    // The first go away while they wait; their places are taken until the server has noticed.
    let deadline = Instant::now() + 3 * crate::house::LONG;
    let mut gone = crowd();
    while most < 8 {
        most = most.max(connected().await);
        // Where connecting is slow, the first have been refused before the last are there: then others ask.
        while gone.try_join_next().is_some() {}
        if gone.is_empty() {
            gone = crowd();
        }
        assert!(Instant::now() < deadline, "{most}");
    }
    drop(gone);
    let mut asking = crowd();
    let mut refused = Vec::new();
    while !asking.is_empty() {
        most = most.max(connected().await);
        while let Some(told) = asking.try_join_next() {
            refused.push(told.unwrap().unwrap_err());
        }
        assert!(Instant::now() < deadline);
    }
    assert_eq!(most, 8, "connections of one reader");
    assert!(refused.iter().any(|error| error.kind() == Kind::Unavailable && error.public().contains("too many")), "{refused:?}");

    // Nobody else is kept out by those who wait.
    let mut waiting = crowd();
    while connected().await < 8 {
        while waiting.try_join_next().is_some() {}
        if waiting.is_empty() {
            waiting = crowd();
        }
        assert!(Instant::now() < deadline);
    }
    let there = house.control.pause_schedule("ops", "acme", "none", true).await.unwrap_err();
    assert_eq!(there.kind(), Kind::NotFound, "{there}");
    drop(waiting);
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    loop {
        match ask().await {
            Ok(()) => break,
            Err(error) => assert!(error.kind() == Kind::Unavailable && Instant::now() < deadline, "{error}"),
        }
    }
    house.stop().await;
}

#[tokio::test]
async fn workers_are_alive_that_beat() {
    let mut house = House::start().await;
    let mut stage = Stage::of(&house, "acme", Isolation::Row).await;
    for kind in ["export", "export", "digest"] {
        stage.enqueue(kind, None).await;
    }
    let (silent, alive) = (stage.worker("silent/1").await, stage.worker("main/2").await);
    assert_eq!(stage.take(alive).await.len(), 3);
    let mut other = house.server.admin("insula_pool").await;
    let beating = tokio::spawn(async move {
        loop {
            sqlx::query("SELECT * FROM insula.worker_beat($1, NULL, NULL)").bind(alive).execute(&mut other).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    // Who is alive is watched for a moment; where the beats are late for it, they are in another.
    let deadline = Instant::now() + crate::house::LONG;
    let found = loop {
        let found = house.control.workers(None).await.unwrap();
        if found.items.iter().any(|worker| worker.alive) || Instant::now() > deadline {
            break found;
        }
    };
    beating.abort();
    assert!(found.away.is_empty());
    let told: Vec<_> = found.items.iter().map(|w| (w.no, w.name.as_str(), w.alive, w.running, w.database.as_str())).collect();
    assert_eq!(told, [(silent, "silent/1", false, 0, "insula_pool"), (alive, "main/2", true, 3, "insula_pool")]);
    assert_eq!(found.items[1].kinds, [("digest".to_owned(), 1), ("export".to_owned(), 2)].into());
    let cell = house.server.cell();
    assert_eq!(house.control.workers(Some(&cell)).await.unwrap().items.len(), 2);
    let nowhere = "nowhere".parse().unwrap();
    assert_eq!(house.control.workers(Some(&nowhere)).await.unwrap_err().kind(), Kind::NotFound);
    // Nobody is connected as a worker: those rows are left over, and count for nothing. A cell that is slow to answer is not counted at all.
    let counted = loop {
        let counted = house.control.status().await.unwrap().workers.get(cell.as_str()).copied();
        if counted.is_some() || Instant::now() > deadline {
            break counted;
        }
    };
    assert_eq!(counted, Some(0));
    house.stop().await;
}

#[tokio::test]
async fn a_database_of_an_older_kit_says_so_and_is_brought_up_to_date_by_the_next_control_plane() {
    let mut house = House::start().await;
    let mut stage = Stage::of(&house, "acme", Isolation::Database).await;
    let job = stage.enqueue("export", None).await;
    let seen = async |stage: &mut Stage, sql: &'static str| -> bool {
        sqlx::query_scalar(sql).fetch_one(&mut stage.admin).await.unwrap()
    };
    assert!(seen(&mut stage, "SELECT digest IS NOT NULL FROM insula.config").await);
    // The first one looks no more.
    house.stop().await;
    let old = "ALTER TABLE insula.config DROP COLUMN digest; DROP FUNCTION insula.job_list(bigint, text, text, uuid, integer)";
    sqlx::raw_sql(old).execute(&mut stage.admin).await.unwrap();
    let refused = house.control.jobs("ops", "acme", &JobQuery::default(), &PageRequest::default()).await.unwrap_err();
    assert!(refused.kind() == Kind::Conflict && refused.to_string().contains("older SQL kit"), "{refused}");

    let mut next = house.another(|_| {}).await;
    let deadline = Instant::now() + crate::house::LONG;
    let found = loop {
        match next.control.jobs("ops", "acme", &JobQuery::default(), &PageRequest::default()).await {
            Ok(found) => break found.items,
            Err(error) => assert!(error.kind() == Kind::Conflict && Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(ids(&found), [job], "what was there is there");
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_of_the_host_are_seen_paused_and_resumed() {
    let house = House::start().await;
    let control = &house.control;
    house.tenant("acme", Isolation::Row).await;
    assert!(control.host_schedules(&PageRequest::default()).await.unwrap().items.is_empty());
    let mut pool = house.server.admin(insula_core::placement::POOL_DATABASE).await;
    for name in ["bills", "reports"] {
        let kept = json!([{"n": name, "c": "0 6 1 * *", "z": "UTC"}]);
        sqlx::query("SELECT insula.host_keep($1)").bind(kept).execute(&mut pool).await.unwrap();
        sqlx::query("UPDATE insula.host_schedule SET next_at = '2030-01-01'").execute(&mut pool).await.unwrap();
    }
    let found = control.host_schedules(&PageRequest { after: None, limit: 1 }).await.unwrap();
    assert_eq!((found.items.len(), found.items[0].name.as_str()), (1, "bills"));
    let found = control.host_schedules(&PageRequest { after: found.next, limit: 1 }).await.unwrap();
    assert_eq!(found.items[0].name, "reports");
    assert!(!found.items[0].paused && found.items[0].next_at.is_some());
    let paused = control.pause_host_schedule("ops", "bills", true).await.unwrap();
    assert!(paused.paused && paused.next_at.is_none());
    let resumed = control.pause_host_schedule("ops", "bills", false).await.unwrap();
    assert!(!resumed.paused && resumed.next_at.is_none(), "a worker computes it anew");
    for missing in ["others", "a\0b"] {
        assert_eq!(control.pause_host_schedule("ops", missing, true).await.unwrap_err().kind(), Kind::NotFound);
    }
    let lines = control.audit(&AuditFilter::default(), &PageRequest::default()).await.unwrap().items;
    let ours: Vec<_> =
        lines.iter().filter(|line| line.action.starts_with("host-schedule.")).map(|line| line.action.as_str()).collect();
    assert!(ours.contains(&"host-schedule.pause") && ours.contains(&"host-schedule.resume") && ours.len() == 2, "{ours:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_the_host_outlives_a_cell_that_comes_before() {
    let early = insula_testkit::durable_server().await;
    let mut secrets = tempfile::NamedTempFile::new().unwrap();
    let logins = json!({"cells": {"early": early.admin_url("postgres")}});
    std::io::Write::write_all(&mut secrets, logins.to_string().as_bytes()).unwrap();
    let server = std::sync::Arc::new(insula_testkit::durable_server().await);
    let mut house = House::on(server, |config| config.cell_secrets = Some(secrets.path().to_owned())).await;
    let control = &house.control;
    let kept = json!([{"n": "bills", "c": "0 6 1 * *", "z": "UTC"}, {"n": "reports", "c": "0 6 1 * *", "z": "UTC"}]);
    let keep = async |pool: &mut PgConnection| {
        sqlx::query("SELECT insula.host_keep($1)").bind(&kept).execute(pool).await.unwrap();
    };
    keep(&mut house.server.admin("insula_pool").await).await;
    for name in ["bills", "reports"] {
        assert!(control.pause_host_schedule("ops", name, true).await.unwrap().paused);
    }
    assert!(!control.pause_host_schedule("ops", "reports", false).await.unwrap().paused);

    let register = insula_control::model::RegisterCell {
        name: "early".parse().unwrap(),
        region: "local".into(),
        labels: vec![],
        host: early.host().into(),
        port: early.port(),
        tls: "prefer".into(),
        app_url: None,
        capacity: 1,
        dedicated: false,
    };
    let prepared = control.register_cell("ops", register).await.unwrap().1.unwrap();
    house.done(prepared.id).await;
    assert!(control.host_schedules(&PageRequest::default()).await.unwrap().items.is_empty(), "no worker has come there yet");
    // A worker comes, and finds them as they were left.
    let mut pool = early.admin("insula_pool").await;
    keep(&mut pool).await;
    let found = control.host_schedules(&PageRequest::default()).await.unwrap().items;
    let told: Vec<_> = found.iter().map(|schedule| (schedule.name.as_str(), schedule.paused)).collect();
    assert_eq!(told, [("bills", true), ("reports", false)]);
    let due: Vec<String> =
        sqlx::query_scalar("SELECT name FROM insula.host_due('{bills,reports}')").fetch_all(&mut pool).await.unwrap();
    assert_eq!(due, ["reports"]);

    // The pool of before hears of what is said now; it may be the first again.
    control.pause_host_schedule("ops", "bills", false).await.unwrap();
    control.pause_host_schedule("ops", "reports", true).await.unwrap();
    let mut before = house.server.admin("insula_pool").await;
    let deadline = Instant::now() + crate::house::LONG;
    loop {
        let sql = "SELECT name FROM insula.host_schedules() WHERE paused";
        let paused: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut before).await.unwrap();
        if paused == ["reports"] {
            break;
        }
        assert!(Instant::now() < deadline, "{paused:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    house.stop().await;
}
