//! What somebody who can run any SQL as the application, or as a worker, can do with others' events and webhooks: nothing.

use insula_events::webhook::{self, Seal};
use insula_post::Reach;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::house::{House, keys};

async fn refused(conn: &mut PgConnection, sql: &str) -> String {
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await;
    let code = outcome.as_ref().err().and_then(|e| e.as_database_error()).and_then(|e| e.code().map(|c| c.into_owned()));
    code.unwrap_or_else(|| format!("{outcome:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_s_role_reaches_its_own_tenant_s_events_and_webhooks_alone() {
    let house = House::new(2).await;
    let theirs: Uuid = house.tell(2, "secret.event", 1).await;
    let mut tx = house.begin(2).await;
    let seal = Seal { keys: &keys(), cell: &house.server.cell() };
    let (hook, secret) =
        webhook::create(&mut tx, seal, Reach::Public, "https://hooks.example/SECRET", &["*"]).await.expect("created");
    let seen: bool = sqlx::query_scalar("SELECT insula.event_new('c', $1)").bind(theirs).fetch_one(&mut tx).await.expect("seen");
    assert!(seen);
    tx.commit().await.expect("committed");
    let stored = format!(
        "SELECT count(*) FROM insula.webhook WHERE position(convert_to('{secret}', 'UTF8') IN sealed) > 0 OR url LIKE '%{secret}%'"
    );
    assert_eq!(house.count(&stored).await, 0, "it lies sealed");

    let mut app = PgConnection::connect(&house.server.role_url("insula_app", &house.database)).await.expect("the app's login");
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut app).await.expect("a pid");
    let key = house.server.cell_key().grant_key(&house.database, 1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs();
    let grant = key.sign(house.tenant(1).no, 1, i64::try_from(now).expect("small") + 30, pid, -1).text();
    let bound = format!("BEGIN; SELECT insula.enter('{grant}');");
    for table in ["event", "event_seen", "outbox", "webhook"] {
        for sql in ["SELECT * FROM insula.", "DELETE FROM insula.", "TRUNCATE insula."] {
            assert_eq!(refused(&mut app, &format!("{sql}{table}")).await, "42501", "{sql}{table}");
            assert_eq!(refused(&mut app, &format!("{bound}{sql}{table}")).await, "42501", "{sql}{table}, bound");
            sqlx::raw_sql("ROLLBACK").execute(&mut app).await.expect("rolled back");
        }
    }
    for call in [
        "outbox_waits()",
        "outbox_take(1, 1, '{}')",
        "outbox_sent('{1}')",
        "outbox_refused(1, 'x')",
        "outbox_state()",
        "sweep_events(0)",
        "wants('{*}', 'a')",
        "is_topic('a')",
    ] {
        assert_eq!(refused(&mut app, &format!("SELECT insula.{call}")).await, "42501", "{call}");
    }
    assert_eq!(refused(&mut app, "SELECT nextval('insula.event_seq')").await, "42501");
    // Unbound, nothing is written, and nothing is found.
    for call in [
        "publish(ARRAY['a'], ARRAY[gen_random_uuid()], ARRAY['{}'])",
        "webhook_create(gen_random_uuid(), 'https://x', '{*}', 'x', 'main')",
    ] {
        assert_eq!(refused(&mut app, &format!("SELECT insula.{call}")).await, "28000", "{call}");
    }
    for call in ["event_new('c', gen_random_uuid())", "event_failed('c', gen_random_uuid())"] {
        let code = refused(&mut app, &format!("SELECT insula.{call}")).await;
        assert!(code == "23502" || code == "42501", "{call}: {code}");
    }
    // Its own grant does not show, change or displace another's.
    sqlx::raw_sql(AssertSqlSafe(bound)).execute(&mut app).await.expect("entered");
    let listed = sqlx::query("SELECT * FROM insula.webhook_list()").fetch_all(&mut app).await.expect("a list");
    let target = sqlx::query("SELECT * FROM insula.webhook_target($1)").bind(hook).fetch_all(&mut app).await.expect("a target");
    assert!(listed.is_empty() && target.is_empty());
    for call in [
        "webhook_remove($1)",
        "webhook_pause($1, true)",
        "webhook_reseal($1, 'mine', 'main')",
        "webhook_send($1, gen_random_uuid(), 'a', '{}')",
    ] {
        let sql = AssertSqlSafe(format!("SELECT insula.{call}"));
        let done: bool = sqlx::query_scalar(sql).bind(hook).fetch_one(&mut app).await.expect("an answer");
        assert!(!done, "{call}");
    }
    sqlx::query("SELECT insula.webhook_told($1, 500, 'x', 'mine')").bind(hook).execute(&mut app).await.expect("nothing done");
    let new: bool =
        sqlx::query_scalar("SELECT insula.event_new('c', $1)").bind(theirs).fetch_one(&mut app).await.expect("an answer");
    assert!(new, "that another tenant has seen an event of that id is not to be learnt");
    sqlx::query("SELECT insula.publish(ARRAY['a'], ARRAY[$1], ARRAY['{\"n\":666}'])")
        .bind(theirs)
        .execute(&mut app)
        .await
        .expect("its id is free");
    sqlx::raw_sql("COMMIT").execute(&mut app).await.expect("committed");
    assert_eq!(house.count("SELECT (body ->> 'n')::bigint FROM insula.event WHERE tenant_id = 2").await, 1);
    assert_eq!(house.count("SELECT count(*) FROM insula.webhook WHERE tenant_id = 2 AND paused_at IS NULL AND last_at IS NULL AND sealed <> 'mine'").await, 1);
    assert_eq!(
        house.count("SELECT count(*) FROM insula.job WHERE tenant_id = 2").await,
        0,
        "nobody's webhook is told of another's event"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_s_login_reads_no_outbox_but_by_its_functions_and_publishes_nothing() {
    let house = House::new(1).await;
    house.tell(1, "a", 1).await;
    let mut worker =
        PgConnection::connect(&house.server.role_url("insula_worker", &house.database)).await.expect("the worker's login");
    for sql in [
        "SELECT * FROM insula.event",
        "DELETE FROM insula.event",
        "SELECT * FROM insula.event_seen",
        "SELECT * FROM insula.webhook",
        "UPDATE insula.outbox SET swept_at = now()",
        "SELECT nextval('insula.event_seq')",
        "SELECT insula.publish(ARRAY['a'], ARRAY[gen_random_uuid()], ARRAY['{}'])",
        "SELECT insula.webhook_list()",
        "SELECT insula.event_new('c', gen_random_uuid())",
    ] {
        assert_eq!(refused(&mut worker, sql).await, "42501", "{sql}");
    }
    let findings = insula_kit::lint(&mut house.admin().await).await.expect("lint");
    let findings: Vec<_> = findings.iter().filter(|f| f.object.contains("insula")).collect();
    assert!(findings.is_empty(), "{findings:?}");
}
