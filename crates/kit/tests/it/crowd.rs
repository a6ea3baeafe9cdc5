//! What is known of lanes that are chosen from in a crowd: it saves scans, and passes nothing over.

use std::collections::HashMap;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::{Pool, number, run};

const LANES: i64 = 12;

/// A database with so many jobs of each of the lanes, whose places in the table are in no order.
async fn fill(each: i64) -> Pool {
    let mut pool = Pool::new().await;
    for no in 1..=LANES {
        pool.tenant(no).await;
    }
    let jobs = format!(
        "INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body)
             SELECT t, gen_random_uuid(), now() + n * interval '1 second', now(), 'nothing', 'null'
               FROM generate_series(1, {LANES}) t, generate_series(1, {each}) n ORDER BY md5(t || ':' || n);
         INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT t, '', 0, '-infinity' FROM generate_series(1, {LANES}) t"
    );
    run(&mut pool.admin, &jobs).await.expect("jobs");
    pool
}

async fn work(conn: &mut PgConnection, want: i64) -> Vec<(i64, Uuid, i32)> {
    let sql = "SELECT tenant_id, id, attempt FROM insula.work(1, '{}', '{}', '{}', $1)";
    sqlx::query_as(sql).bind(want).fetch_all(conn).await.expect("work")
}

/// One scan of what waits serves several takes.
#[tokio::test]
async fn a_crowd_s_takes_seldom_scan() {
    let mut pool = fill(40).await;
    run(&mut pool.admin, "VACUUM ANALYZE insula.job").await.expect("analyzed");
    let mut tx = pool.admin.begin().await.expect("begin");
    let mut taken = HashMap::<i64, i64>::new();
    for _ in 0..LANES * 20 / 4 {
        for (tenant, ..) in work(&mut tx, 4).await {
            *taken.entry(tenant).or_default() += 1;
        }
    }
    assert!(taken.len() == 12 && taken.values().all(|taken| *taken == 20), "{taken:?}");
    let scans = number(&mut tx, "SELECT pg_stat_get_xact_numscans('insula.job_waiting'::regclass)").await.expect("statistics");
    assert!(scans <= LANES * 20 / 3, "{scans} scans for {} jobs", LANES * 20);
}

/// Numbers that look random, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

/// What waits in each lane, in its order, and where each is in it: some are due at the same time.
async fn waiting(conn: &mut PgConnection) -> HashMap<i64, (Vec<Uuid>, Vec<String>)> {
    let sql = "SELECT j.tenant_id, array_agg(j.id ORDER BY j.rank, j.due), array_agg(j.rank || ' ' || j.due ORDER BY j.rank, j.due) FROM insula.job j
                WHERE j.state = 'w' AND NOT EXISTS (SELECT FROM insula.cancellation c WHERE c.tenant_id = j.tenant_id AND c.id = j.id) GROUP BY 1";
    let rows: Vec<(i64, Vec<Uuid>, Vec<String>)> = sqlx::query_as(sql).fetch_all(conn).await.expect("what waits");
    rows.into_iter().map(|(no, ids, places)| (no, (ids, places))).collect()
}

/// Whatever comes between the takes, of each lane its first are taken: jobs that are due before those that wait, or more urgent, or given back;
/// jobs that are cancelled or taken out by hand; the table written anew in another order, so that each place is another job's.
#[tokio::test]
async fn of_each_lane_the_first_are_taken_whatever_comes_between() {
    let mut pool = fill(120).await;
    let admin = &mut pool.admin;
    let mut chance = Chance(7);
    let mut running = Vec::new();
    let mut takes = 0;
    for step in 0.. {
        match chance.below(16) {
            0..=2 => {
                // Mostly just behind one of its first, now and then of another rank or cost.
                let (no, nth, rank, cost) =
                    (1 + chance.below(LANES), chance.below(9), chance.below(8) / 7, 1 + chance.below(8) / 7);
                let came = format!(
                    "WITH j AS (INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body, rank, cost)
                                SELECT {no}, gen_random_uuid(), due + interval '1 ms', now(), 'nothing', 'null', -{rank}, {cost} FROM insula.job
                                 WHERE tenant_id = {no} AND state = 'w' ORDER BY rank, due LIMIT 1 OFFSET {nth} RETURNING *)
                     INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT tenant_id, lane, rank, due FROM j"
                );
                run(admin, &came).await.expect("came");
            }
            3 if !running.is_empty() => {
                let at = usize::try_from(chance.below(i64::try_from(running.len()).expect("few"))).expect("positive");
                let (no, id, attempt): (i64, Uuid, i32) = running.swap_remove(at);
                let back =
                    format!("SELECT insula.settle(1, '[{{\"t\": {no}, \"i\": \"{id}\", \"a\": {attempt}, \"o\": \"back\"}}]')");
                assert_eq!(number(admin, &back).await.expect("given back"), 1);
            }
            4 => {
                let no = 1 + chance.below(LANES);
                let some = format!(
                    "SELECT tenant_id, id FROM insula.job WHERE tenant_id = {no} AND state = 'w' ORDER BY rank, due LIMIT 1 OFFSET {}",
                    chance.below(6)
                );
                let gone = if chance.below(2) == 0 {
                    format!("INSERT INTO insula.cancellation (tenant_id, id) {some} ON CONFLICT DO NOTHING")
                } else {
                    format!("DELETE FROM insula.job j USING ({some}) x WHERE j.tenant_id = x.tenant_id AND j.id = x.id")
                };
                run(admin, &gone).await.expect("gone");
            }
            5 if chance.below(4) == 0 => run(admin, "CLUSTER insula.job USING job_pkey").await.expect("written anew"),
            _ => {
                // Mostly one of each; now and then another number, for which what is known is of no use.
                let want = if chance.below(12) > 0 { 4 } else { 4 * (1 + chance.below(7)) };
                let before = waiting(admin).await;
                let taken = work(admin, want).await;
                assert!(before.is_empty() || !taken.is_empty(), "step {step}: something waits, and nothing is taken");
                takes += 1;
                let mut of_each = HashMap::<i64, Vec<Uuid>>::new();
                for (no, id, attempt) in taken {
                    of_each.entry(no).or_default().push(id);
                    running.push((no, id, attempt));
                }
                for (no, taken) in of_each {
                    let (ids, places) = &before[&no];
                    let at = |id: &Uuid| places[ids.iter().position(|waits| waits == id).expect("it waited")].clone();
                    let mut first = places[..taken.len()].to_vec();
                    let mut taken: Vec<String> = taken.iter().map(at).collect();
                    first.sort();
                    taken.sort();
                    assert_eq!(taken, first, "step {step}: of {no}, {want} wanted");
                }
                if before.is_empty() {
                    break;
                }
            }
        }
    }
    assert!(takes > 100, "{takes} takes");
}
