//! What the queue's statements do beside one another, in both orders: each waits for whoever chooses, and sees what he did.

use std::time::Duration;

use insula_core::TenantState;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;

use crate::queue::take;
use crate::{Pool, number, run};

/// Begins something on a connection of its own, and goes on when it is over or waits for somebody's lock.
async fn beside(pool: &mut Pool, sql: String) -> JoinHandle<Result<(), sqlx::Error>> {
    let mut other = pool.server.admin(&pool.database).await;
    let doing = tokio::spawn(async move { run(&mut other, &sql).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..12_000 {
        if doing.is_finished() || number(&mut pool.admin, waits).await.expect("activity") > 0 {
            return doing;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("neither over nor waiting");
}

async fn worker(pool: &mut Pool) -> i64 {
    number(&mut pool.admin, "SELECT insula.worker_begin('test', 3600000)").await.expect("a worker")
}

async fn work(conn: &mut PgConnection, worker: i64, want: i64) -> i64 {
    number(conn, &format!("SELECT count(*) FROM insula.work({worker}, '{{}}', '{{}}', '{{}}', {want})")).await.expect("work")
}

/// A tenant with a lane that is told these caps, and so many jobs in it.
async fn lane(pool: &mut Pool, lane: &str, caps: &str, jobs: u32, attempts: u32) {
    let fill = format!(
        "INSERT INTO insula.lane (tenant_id, lane, ready, siblings, cap, tenant_cap) SELECT 1, '{lane}', true, EXISTS (SELECT FROM insula.lane), {caps};
         UPDATE insula.lane SET siblings = true WHERE lane <> '{lane}';
         INSERT INTO insula.job (tenant_id, lane, id, due, created_at, attempts, kind, body)
            SELECT 1, '{lane}', gen_random_uuid(), now() + n * interval '1 ms', now(), {attempts}, 'nothing', 'null' FROM generate_series(1, {jobs}) n"
    );
    run(&mut pool.admin, &fill).await.expect("jobs");
}

/// Two may run. One does, and another is being taken, which blocks the lane, while the first one ends: then a third may start.
#[tokio::test]
async fn an_end_beside_a_choice_lets_the_lane_go_on() {
    let settle = |outcome| {
        format!(
            "SELECT insula.settle(1, (SELECT jsonb_agg(jsonb_build_object('t', 1, 'i', j.id, 'a', 1, 'l', '', 'o', '{outcome}', 'r', 7))
                                        FROM insula.job j WHERE j.worker = 1))"
        )
    };
    let lost = "SELECT insula.worker_end(1)".to_owned();
    for (end, attempts) in [(settle("done"), 9), (settle("back"), 9), (settle("retry"), 9), (lost.clone(), 9), (lost, 1)] {
        let mut pool = Pool::new().await;
        pool.tenant(1).await;
        let (first, second) = (worker(&mut pool).await, worker(&mut pool).await);
        assert_eq!((first, second), (1, 2));
        lane(&mut pool, "", "2, NULL", 4, attempts).await;
        assert_eq!(work(&mut pool.admin, first, 1).await, 1);
        let mut chooser = pool.server.admin(&pool.database).await;
        let mut choosing = chooser.begin().await.expect("begin");
        assert_eq!(work(&mut choosing, second, 1).await, 1);
        let ending = beside(&mut pool, end.clone()).await;
        choosing.commit().await.expect("commit");
        ending.await.expect("the end").expect("the end");
        assert_eq!(work(&mut pool.admin, second, 10).await, 1, "{end}");
        assert_eq!(work(&mut pool.admin, second, 10).await, 0, "{end}: two may run");
    }
}

/// The last attempt of a job takes its worker down: what waited for it, by the kind's cap or by the tenant's, goes on.
#[tokio::test]
async fn a_lost_worker_s_last_attempt_blocks_nothing() {
    for (caps, attempts) in [("1, NULL", 1), ("NULL, 1", 1), ("NULL, 1", 9)] {
        let mut pool = Pool::new().await;
        pool.tenant(1).await;
        let lost = worker(&mut pool).await;
        lane(&mut pool, "", caps, 2, attempts).await;
        lane(&mut pool, "other", caps, 2, attempts).await;
        while work(&mut pool.admin, lost, 10).await > 0 {}
        let ran = number(&mut pool.admin, "SELECT count(*) FROM insula.job WHERE state = 'r'").await.expect("jobs");
        run(&mut pool.admin, &format!("SELECT insula.worker_end({lost})")).await.expect("buried");
        let next = worker(&mut pool).await;
        let mut all = if attempts == 1 { ran } else { 0 };
        for _ in 0..10 {
            let over = format!(
                "SELECT count(*) FROM insula.work({next}, (SELECT array_agg(tenant_id) FROM insula.job WHERE state = 'r'),
                    (SELECT array_agg(id) FROM insula.job WHERE state = 'r'), (SELECT array_agg(attempt) FROM insula.job WHERE state = 'r'), 10)"
            );
            all += number(&mut pool.admin, &over).await.expect("work");
        }
        assert_eq!(all, 4, "{caps}, {attempts} attempts");
    }
}

/// A lane that is made, or a choice that is made from one, while its tenant is suspended or resumed.
#[tokio::test]
async fn a_lane_follows_its_tenant_s_state_beside_a_choice() {
    let arrive = "INSERT INTO insula.arrival (tenant_id, lane, rank, due) VALUES (1, '', 0, '-infinity');
        INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body)
            SELECT 1, gen_random_uuid(), now() + n * interval '1 ms', now(), 'nothing', 'null' FROM generate_series(1, 20) n";
    for (known, from, to) in [
        (false, TenantState::Active, TenantState::Suspended),
        (true, TenantState::Active, TenantState::Suspended),
        (false, TenantState::Suspended, TenantState::Active),
        (true, TenantState::Suspended, TenantState::Active),
    ] {
        let mut pool = Pool::new().await;
        let one = pool.tenant(1).await;
        if known {
            run(&mut pool.admin, "INSERT INTO insula.lane (tenant_id) VALUES (1)").await.expect("a lane");
        }
        insula_kit::set_tenant(&mut pool.admin, one, 2, from).await.expect("a state");
        run(&mut pool.admin, arrive).await.expect("jobs");
        let mut chooser = pool.server.admin(&pool.database).await;
        let mut choosing = chooser.begin().await.expect("begin");
        let chosen = work(&mut choosing, 1, 1).await;
        assert_eq!(chosen, i64::from(from == TenantState::Active), "{known} {from:?}");
        let change =
            beside(&mut pool, format!("UPDATE insula.tenant SET epoch = 3, state = '{}' WHERE no = 1", to.as_str())).await;
        choosing.commit().await.expect("commit");
        change.await.expect("changed").expect("changed");
        let out = number(&mut pool.admin, "SELECT count(*) FROM insula.lane WHERE held AND NOT ready").await.expect("lanes");
        assert_eq!(out, i64::from(to != TenantState::Active), "{known} {to:?}");
        assert_eq!(take(&mut pool.admin, 7).await, if to == TenantState::Active { 20 } else { 0 }, "{known} {to:?}");
    }
}

/// What takes a lane out, begun before the choice: that waits, and chooses nothing.
#[tokio::test]
async fn a_lane_that_is_being_taken_out_is_not_chosen_from() {
    let suspend = "UPDATE insula.tenant SET state = 'suspended' WHERE no = 1";
    let fail = "SELECT insula.settle(1, (SELECT jsonb_agg(jsonb_build_object('t', 1, 'i', gen_random_uuid(), 'a', 1, 'l', '', 'o', 'retry'))
                                           FROM generate_series(1, 10)))";
    let by_hand = "UPDATE insula.lane SET held = true, ready = false";
    for (out, is_out) in [
        (suspend, "held AND NOT ready"),
        (fail, "failures >= 10 AND wake_at > now() AND NOT ready"),
        (by_hand, "held AND NOT ready"),
    ] {
        // Fewer than there are lanes (one of each), and more.
        for want in [1, 5] {
            let mut pool = Pool::new().await;
            pool.tenant(1).await;
            lane(&mut pool, "", "NULL, NULL", 20, 9).await;
            let mut other = pool.server.admin(&pool.database).await;
            let mut tx = other.begin().await.expect("begin");
            run(&mut tx, out).await.expect("taken out");
            let choosing = beside(&mut pool, format!("SELECT * FROM insula.work(1, '{{}}', '{{}}', '{{}}', {want})")).await;
            tx.commit().await.expect("commit");
            choosing.await.expect("the chooser").expect("work");
            // Without the queue's lock, what was chosen before is: and the lane stays out all the same.
            let chosen = number(&mut pool.admin, "SELECT count(*) FROM insula.job WHERE state = 'r'").await.expect("jobs");
            assert_eq!(chosen, if out == by_hand { want } else { 0 }, "{want} wanted: {is_out}");
            let lanes = format!("SELECT count(*) FROM insula.lane WHERE {is_out}");
            assert_eq!(number(&mut pool.admin, &lanes).await.expect("lanes"), 1, "{want} wanted: not {is_out}");
            assert_eq!(take(&mut pool.admin, want).await, 0, "{want} wanted: not {is_out}");
        }
    }
}

/// House-keeping has the queue's lock, which an end wants that has its rows locked already.
#[tokio::test]
async fn house_keeping_waits_for_no_end_that_is_being_written() {
    let mut pool = Pool::new().await;
    pool.tenant(1).await;
    let lost = worker(&mut pool).await;
    lane(&mut pool, "", "NULL, NULL", 2, 9).await;
    assert_eq!(work(&mut pool.admin, lost, 2).await, 2);
    let over = "DELETE FROM insula.worker;
        INSERT INTO insula.job_end (tenant_id, id, outcome, kind, lane, rank, attempt, attempts, cost, keep, created_at, ended_at, expires_at, body)
            SELECT 1, gen_random_uuid(), 'dead', 'nothing', '', 0, 1, 1, 1, 0, now(), now(), now() - n * interval '1 s', 'null' FROM generate_series(1, 2) n";
    run(&mut pool.admin, over).await.expect("a lost worker, and ends that are over");
    let mut other = pool.server.admin(&pool.database).await;
    let mut ending = other.begin().await.expect("begin");
    run(&mut ending, "SELECT FROM insula.job LIMIT 1 FOR UPDATE; SELECT FROM insula.job_end LIMIT 1 FOR UPDATE")
        .await
        .expect("locked");
    for left in [1, 0] {
        let sweep = beside(&mut pool, "SELECT insula.sweep_queue(0)".to_owned()).await;
        assert!(sweep.is_finished(), "it waits");
        sweep.await.expect("swept").expect("swept");
        for rest in ["insula.job WHERE state = 'r'", "insula.job_end"] {
            assert_eq!(number(&mut pool.admin, &format!("SELECT count(*) FROM {rest}")).await.expect("rows"), left, "{rest}");
        }
        if left > 0 {
            run(&mut ending, "COMMIT").await.expect("commit");
        }
    }
}

/// Six workers at once that take, end, give back, fail, are lost, tell caps, and keep house: when nothing runs any more, everything that waits is taken.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_together_leaves_no_lane_behind() {
    let mut pool = Pool::new().await;
    pool.tenant(1).await;
    pool.tenant(2).await;
    let procedure = "CREATE PROCEDURE public.stress(times integer) LANGUAGE plpgsql AS $$
        DECLARE
            me   bigint := insula.worker_begin('stress', 3600000);
            dice float;
        BEGIN
            FOR n IN 1..times LOOP
                dice := random();
                IF dice < 0.4 THEN
                    PERFORM insula.work(me, array_agg(j.tenant_id), array_agg(j.id), array_agg(j.attempt), floor(random() * 4)::bigint)
                       FROM (SELECT * FROM insula.job j WHERE j.worker = me AND random() < 0.6) j;
                ELSIF dice < 0.7 THEN
                    PERFORM insula.settle(me, coalesce(jsonb_agg(jsonb_build_object('t', j.tenant_id, 'i', j.id, 'a', j.attempt,
                                'o', (ARRAY['done', 'back', 'dead'])[1 + floor(random() * 3)::integer], 'r', 7)), '[]'))
                       FROM (SELECT * FROM insula.job j WHERE j.worker = me AND random() < 0.6) j;
                ELSIF dice < 0.75 THEN
                    PERFORM insula.tell_lanes('[{\"t\": 1, \"l\": \"\", \"w\": 1, \"tc\": 3, \"m\": 1}, {\"t\": 1, \"l\": \"x\", \"w\": 1, \"c\": 2, \"tc\": 3, \"m\": 1},
                                                {\"t\": 2, \"l\": \"x\", \"w\": 1, \"c\": 1, \"m\": 1}]');
                ELSIF dice < 0.8 THEN
                    PERFORM insula.worker_end(me);
                    me := insula.worker_begin('stress', 3600000);
                ELSIF dice < 0.85 THEN
                    PERFORM insula.sweep_queue(0);
                ELSE
                    WITH j AS (
                        INSERT INTO insula.job (tenant_id, lane, id, due, created_at, attempts, kind, body)
                            SELECT 1 + n % 2, (ARRAY['', 'x'])[1 + n % 4 / 2], gen_random_uuid(), clock_timestamp(), now(), 3, 'nothing', 'null'
                            RETURNING tenant_id, lane, rank, due)
                    INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT * FROM j;
                END IF;
                COMMIT;
            END LOOP;
            PERFORM insula.worker_end(me);
        END $$";
    run(&mut pool.admin, procedure).await.expect("a procedure");
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut conn = pool.server.admin(&pool.database).await;
        workers.spawn(async move { run(&mut conn, "CALL public.stress(400)").await });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("a worker").expect("no statement fails, by a deadlock neither");
    }
    let last = worker(&mut pool).await;
    run(&mut pool.admin, "SELECT insula.sweep_queue(0)").await.expect("swept");
    for _ in 0..2_000 {
        let sql = format!(
            "SELECT count(*) FROM insula.work({last}, (SELECT array_agg(tenant_id) FROM insula.job WHERE worker = {last}),
                (SELECT array_agg(id) FROM insula.job WHERE worker = {last}), (SELECT array_agg(attempt) FROM insula.job WHERE worker = {last}), 4)"
        );
        number(&mut pool.admin, &sql).await.expect("work");
        let jobs = number(&mut pool.admin, "SELECT count(*) FROM insula.job").await.expect("jobs");
        if jobs == 0 {
            break;
        }
    }
    let left = "SELECT string_agg(l::text, ' ') FROM insula.lane l WHERE EXISTS (SELECT FROM insula.job j WHERE j.tenant_id = l.tenant_id AND j.lane = l.lane)";
    let left: Option<String> = sqlx::query_scalar(left).fetch_one(&mut pool.admin).await.expect("lanes");
    assert_eq!(left, None, "jobs were left behind");
}
