//! What somebody who can run any SQL as the application, or as a worker, can do to others' jobs: nothing.

use std::time::Duration;

use insula_jobs::{Enqueue, JobId, send};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::house::{House, Note};

async fn refused(conn: &mut PgConnection, sql: &str) -> String {
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await;
    let code = outcome.as_ref().err().and_then(|e| e.as_database_error()).and_then(|e| e.code().map(|c| c.into_owned()));
    code.unwrap_or_else(|| format!("{outcome:?}"))
}

/// The host side's own.
const OPERATORS: &[&str] = &[
    "dead_letters(NULL, 10)",
    "dead_replay(2, NULL)",
    "dead_purge(2, now())",
    "job_list(2, NULL, NULL, NULL, 10)",
    "job_show(2, gen_random_uuid())",
    "job_body(2, gen_random_uuid())",
    "job_cancel(2, gen_random_uuid())",
    "job_retry(2, gen_random_uuid())",
    "worker_list()",
    "queue_waits()",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_application_s_role_reaches_its_own_tenant_s_jobs_and_nothing_of_the_queue() {
    let house = House::new(2).await;
    let theirs: JobId =
        send(&house.data, &house.tenant(2), &Note::new("SECRET", 0), &Enqueue::default()).await.expect("sent").expect("new");
    let mut app = PgConnection::connect(&house.server.role_url("insula_app", &house.database)).await.expect("the app's login");
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut app).await.expect("a pid");
    let key = house.server.cell_key().grant_key(&house.database, 1);
    let soon = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs())
        .expect("small")
        + 30;
    let grant = key.sign(house.tenant(1).no, 1, soon, pid, -1).text();
    let bound = format!("BEGIN; SELECT insula.enter('{grant}');");
    // Whatever the kit has, also what is added later.
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'insula'::regnamespace AND relkind IN ('r', 'p')";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut house.admin().await).await.expect("tables");
    assert!(tables.len() > 15 && tables.iter().any(|table| table == "schedule"), "{tables:?}");
    for table in tables {
        for sql in ["SELECT * FROM insula.", "DELETE FROM insula.", "TRUNCATE insula."] {
            assert_eq!(refused(&mut app, &format!("{sql}{table}")).await, "42501", "{sql}{table}");
            assert_eq!(refused(&mut app, &format!("{bound}{sql}{table}")).await, "42501", "{sql}{table}, bound");
            sqlx::raw_sql("ROLLBACK").execute(&mut app).await.expect("rolled back");
        }
    }
    for call in [
        "work(1, '{}', '{}', '{}', 10)",
        "settle(1, '[]')",
        "worker_begin('x', 1000)",
        "worker_beat(1, NULL, NULL)",
        "worker_end(1)",
        "worker_bury(1, 0)",
        "worker_holds(1)",
        "workers()",
        "tell_lanes('[]')",
        "worker_sleeps(true)",
        "worker_away(true)",
        "glance()",
        "sweep_queue(0)",
        "queue_state()",
        "release_orphans()",
        "end_cancelled(1)",
        "forget_lanes('1 minute', 1)",
        "clock_set_back('1 day')",
        "let_go(now())",
        "schedules_due('{}', 10)",
        "schedule_fire('[]')",
        "schedules_next()",
        "schedules_known(0, '', 10)",
        "schedules_keep('[]')",
        "schedules_drop('[]')",
        "schedules_follow('[]')",
        "schedules_tidy('{}')",
        "schedules_of(NULL, 10)",
        "schedule_pause(2, 'x', true)",
        "sweep_begin('{}')",
        "sweeps_open()",
        "sweep_marks('x')",
        "sweep_step('x', '[]')",
        "sweep_end('x')",
        "sweep_stop('x')",
        "sweep_state('x')",
        "sweeps_tidy()",
        "host_keep('[]')",
        "host_due('{}')",
        "host_plan('x', 1, 1)",
        "host_take(1, 'x', 1, 1)",
        "host_end(1, 'x', 1, NULL, NULL)",
        "host_tidy('{}')",
        "host_schedules()",
        "host_pause('x', true)",
        "host_pause('x', true, 1)",
    ]
    .iter()
    .chain(OPERATORS)
    {
        assert_eq!(refused(&mut app, &format!("SELECT insula.{call}")).await, "42501", "{call}");
    }
    for sequence in ["insula.asleep", "insula.worker_no"] {
        assert_eq!(refused(&mut app, &format!("SELECT nextval('{sequence}')")).await, "42501");
    }
    // What it may ring for is the name of a tenant's database, and nothing else that a listener might take for something.
    for not_one in ["insula_pool", "d0123456789abcdeg", "d0123456789abcdef\nx", ""] {
        assert_eq!(refused(&mut app, &format!("SELECT insula.ring('{not_one}')")).await, "22023", "{not_one}");
    }
    // Not from within a tenant's transaction, and not for what is not there: what is heard first is what there is.
    let ring = |database: &str| format!("SELECT insula.ring('{database}')");
    assert_eq!(refused(&mut app, &format!("{bound}{}", ring(&house.database))).await, "28000");
    sqlx::raw_sql("ROLLBACK").execute(&mut app).await.expect("rolled back");
    let mut listener = PgListener::connect(&house.server.role_url("insula_worker", &house.database)).await.expect("a listener");
    listener.listen("insula_bell").await.expect("listening");
    for database in ["d0123456789abcdef", &house.database] {
        sqlx::raw_sql(AssertSqlSafe(ring(database))).execute(&mut app).await.expect("rung");
    }
    let heard = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await.expect("rung").expect("a notification");
    assert_eq!(heard.payload(), house.database);
    let enqueue = "SELECT insula.enqueue('note', ARRAY[gen_random_uuid()], ARRAY['{}'])";
    assert_eq!(refused(&mut app, enqueue).await, "28000", "unbound");
    let put = "SELECT insula.schedule_put('x', 'note', '{}', '* * * * *')";
    assert_eq!(refused(&mut app, put).await, "28000", "unbound");
    let secret = "INSERT INTO insula.schedule (tenant_id, name, kind, cron, since, body) VALUES (2, 'theirs', 'SECRET', '* * * * *', now(), '{}')";
    sqlx::query(secret).execute(&mut house.admin().await).await.expect("a schedule of another's");
    // Its own grant does not show, cancel or displace another's job, by id or by key.
    sqlx::raw_sql(AssertSqlSafe(bound)).execute(&mut app).await.expect("entered");
    let seen = sqlx::query("SELECT * FROM insula.job_state($1)").bind(theirs).fetch_all(&mut app).await.expect("an answer");
    assert!(seen.is_empty());
    let cancelled: bool =
        sqlx::query_scalar("SELECT insula.cancel_job($1)").bind(theirs).fetch_one(&mut app).await.expect("an answer");
    assert!(!cancelled);
    let taken = "SELECT insula.enqueue('note', ARRAY[$1::uuid], ARRAY['{\"what\":\"mine\",\"millis\":0}'])";
    let given: i64 = sqlx::query_scalar(taken).bind(theirs).fetch_one(&mut app).await.expect("its id is free for another tenant");
    assert_eq!(given, 1);
    // Nor the keys of schedules and sweeps: workers insert those for all tenants, and would wait for this transaction's end.
    let own = |key: &str| {
        format!("SAVEPOINT s; SELECT insula.enqueue('note', ARRAY[gen_random_uuid()], ARRAY['{{}}'], ARRAY['{key}'])")
    };
    for key in ["schedule:theirs:2030-01-01T00:00:00.000000Z", "sweep:all", "schedule:"] {
        assert_eq!(refused(&mut app, &own(key)).await, "22023", "{key}");
        sqlx::raw_sql("ROLLBACK TO s").execute(&mut app).await.expect("rolled back");
        let keyed = Enqueue { key: Some(key.to_owned()), ..Enqueue::default() };
        let fault = send(&house.data, &house.tenant(1), &Note::new("x", 0), &keyed).await.expect_err("the queue's own");
        assert!(matches!(fault, insula_jobs::Error::Options(_)), "{fault}");
    }
    for key in ["schedules", "sweeper:1", "my schedule:"] {
        sqlx::raw_sql(AssertSqlSafe(own(key))).execute(&mut app).await.expect(key);
    }
    // Nor its schedule, by name.
    let seen = sqlx::query("SELECT * FROM insula.schedule_list()").fetch_all(&mut app).await.expect("an answer");
    assert!(seen.is_empty());
    for call in ["schedule_switch('theirs', true)", "schedule_remove('theirs')"] {
        let sql = format!("SELECT insula.{call}");
        let done: bool = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut app).await.expect("an answer");
        assert!(!done, "{call}");
    }
    let mine = "SELECT insula.schedule_put('theirs', 'note', '{}', '0 0 29 2 *')";
    sqlx::query(mine).execute(&mut app).await.expect("its name is free for another tenant");
    sqlx::raw_sql("COMMIT").execute(&mut app).await.expect("committed");
    assert_eq!(
        house.count("SELECT count(*) FROM insula.schedule WHERE tenant_id = 2 AND kind = 'SECRET' AND NOT paused").await,
        1
    );
    assert_eq!(house.count("SELECT count(*) FROM insula.job WHERE tenant_id = 2 AND body ->> 'what' = 'SECRET'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_s_login_reads_no_tenant_s_table_and_makes_nothing() {
    let house = House::new(1).await;
    let mut worker =
        PgConnection::connect(&house.server.role_url("insula_worker", &house.database)).await.expect("the worker's login");
    for sql in [
        "SELECT * FROM app.done",
        "SELECT * FROM insula.job",
        "SELECT * FROM insula.secret",
        "SELECT * FROM insula.tenant",
        "SELECT insula.enqueue('note', ARRAY[gen_random_uuid()], ARRAY['{}'])",
        "SELECT insula.host_enter(1)",
        "SELECT * FROM insula.schedule",
        "SELECT * FROM insula.sweep_mark",
        "SELECT * FROM insula.host_schedule",
        "SELECT insula.schedule_put('x', 'note', '{}', '* * * * *')",
        "SELECT insula.schedule_pause(1, 'x', true)",
        "SELECT insula.enter('x')",
        "CREATE TABLE app.x ()",
        "CREATE TABLE insula.x ()",
        "CREATE TEMP TABLE x ()",
        "SET ROLE insula_queue",
        "SET ROLE insula_owner",
        "SET backtrace_functions = '1'",
        "SELECT pg_notify('insula_jobs', '')",
        "DO $$ BEGIN END $$",
    ] {
        let code = refused(&mut worker, sql).await;
        assert!(code == "42501" || code == "28000", "{sql}: {code}");
    }
    for call in OPERATORS {
        assert_eq!(refused(&mut worker, &format!("SELECT insula.{call}")).await, "42501", "{call}");
    }
    assert_eq!(
        insula_kit::lint(&mut house.admin().await).await.expect("lint").iter().filter(|f| f.rule == "worker-grant").count(),
        0
    );
}
