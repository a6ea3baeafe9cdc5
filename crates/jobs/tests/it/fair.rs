//! Fairness on the real queue: starvation, weights, and that the database chooses as the planner's model does.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use insula_core::TenantNo;
use insula_jobs::{Enqueue, Job, JobContext, JobError, Jobs, WorkerConfig, send_all};
use insula_planner::lanes::{LaneRules, Lanes};
use serde::{Deserialize, Serialize};

use crate::house::{ByHand, House, Note, Nothing};

static MUCH: AtomicI64 = AtomicI64::new(0);
static FEW: AtomicI64 = AtomicI64::new(0);
/// How many of [`Much`] had begun when the tenth of [`Few`] did.
static MUCH_BY_THEN: AtomicI64 = AtomicI64::new(0);

/// One of very many.
#[derive(Serialize, Deserialize)]
struct Much;

impl Job for Much {
    const KIND: &'static str = "much";
    type Output = ();
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        MUCH.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// One of ten.
#[derive(Serialize, Deserialize)]
struct Few;

impl Job for Few {
    const KIND: &'static str = "few";
    type Output = ();
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        if FEW.fetch_add(1, Ordering::SeqCst) == 9 {
            MUCH_BY_THEN.store(MUCH.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        Note::new("few", 0).run(context).await
    }
}

/// A million of A's, in one statement, and then ten of B's.
#[tokio::test(flavor = "multi_thread")]
async fn ten_of_one_do_not_wait_behind_a_million_of_another() {
    let house = House::new(2).await;
    // As enqueue() would, but at once.
    let fill = "INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body)
                SELECT 1, gen_random_uuid(), now(), now(), 'much', 'null' FROM generate_series(1, 1000000)";
    let mut admin = house.admin().await;
    sqlx::query(fill).execute(&mut admin).await.expect("a backlog");
    sqlx::query("INSERT INTO insula.arrival (tenant_id, lane, rank, due) VALUES (1, '', 0, '-infinity')")
        .execute(&mut admin)
        .await
        .expect("told");
    // One who takes twenty at a time: whatever A has, B's are the half of what is taken next.
    let mut hand = ByHand::new(&house).await;
    let mut done = hand.work(&[], 20).await;
    for _ in 0..20 {
        done = hand.work(&done, 20).await;
        assert!(done.len() == 20 && done.iter().all(|(tenant, _)| *tenant == 1));
    }
    let nothings: Vec<Nothing> = (0..10).map(|_| Nothing).collect();
    send_all(&house.data, &house.tenant(2), &nothings, &Enqueue::default()).await.expect("sent");
    done = hand.work(&done, 20).await;
    assert_eq!(done.iter().filter(|(tenant, _)| *tenant == 2).count(), 10, "all of B's");
    hand.work(&done, 0).await;
    // And a worker, as fast as it can.
    let worker = house.worker(Jobs::new().with::<Much>().with::<Few>());
    while MUCH.load(Ordering::SeqCst) < 1_000 {
        tokio::task::yield_now().await;
    }
    let few: Vec<Few> = (0..10).map(|_| Few).collect();
    send_all(&house.data, &house.tenant(2), &few, &Enqueue::default()).await.expect("sent");
    // Since they were there to be taken: what began while they were on their way is not counted.
    let before = MUCH.load(Ordering::SeqCst);
    house.until("B", "SELECT count(*) = 10 FROM app.done").await;
    let meanwhile = MUCH_BY_THEN.load(Ordering::SeqCst) - before;
    assert!(meanwhile < 3_000, "of A's million {meanwhile} began before the last of B's ten");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_get_work_by_their_weight() {
    const EACH: i64 = 20_000;
    let house = House::new(4).await;
    let mut admin = house.admin().await;
    for (no, plan) in [(1, "bronze"), (2, "silver"), (3, "gold"), (4, "platinum")] {
        house.change(no, |row| row.plan = plan.parse().expect("a name")).await;
        let fill = "INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body)
                    SELECT $1, gen_random_uuid(), now(), now(), 'nothing', 'null' FROM generate_series(1, $2)";
        sqlx::query(fill).bind(no).bind(EACH).execute(&mut admin).await.expect("a backlog");
        let told = "INSERT INTO insula.arrival (tenant_id, lane, rank, due) VALUES ($1, '', 0, '-infinity')";
        sqlx::query(told).bind(no).execute(&mut admin).await.expect("told");
    }
    // One at a time and nothing ahead, so that what was done is what was chosen. Jobs that wait for nothing: what time they take is charged, and a
    // busy machine's stalls are not what is tried here.
    let config = WorkerConfig { concurrency: 4, ahead: Duration::ZERO, ..house.config() };
    let worker = house.worker_with(Jobs::new().with::<Nothing>(), config);
    // Weights are learnt with the first job of each.
    house.until("weights", "SELECT coalesce(sum(weight), 0) = 15 FROM insula.lane").await;
    let mut done = async || -> Vec<i64> {
        let left = "SELECT count(j) FROM generate_series(1, 4) n LEFT JOIN insula.job j ON j.tenant_id = n GROUP BY n ORDER BY n";
        let left: Vec<i64> = sqlx::query_scalar(left).fetch_all(&mut admin).await.expect("counts");
        left.into_iter().map(|left| EACH - left).collect()
    };
    let before = done().await;
    house
        .until("six thousand", &format!("SELECT count(*) < {} FROM insula.job", 4 * EACH - 6_000 - before.iter().sum::<i64>()))
        .await;
    let got: Vec<i64> = done().await.iter().zip(&before).map(|(now, before)| now - before).collect();
    worker.stop().await;
    assert!(got[3] + before[3] < EACH, "the heaviest ran out of work before it was looked at: {got:?}");
    let all: i64 = got.iter().sum();
    for (at, weight) in [1, 2, 4, 8].into_iter().enumerate() {
        let due = all as f64 * f64::from(weight) / 15.0;
        assert!((got[at] as f64 - due).abs() <= due * 0.05 + 8.0, "weight {weight}: {} of {due:.0}: {got:?}", got[at]);
    }
}

/// insula.work() against the planner's lanes with the same weights, costs and jobs: the same tenants in the same order, one by one, fewer than there
/// are lanes (one of each), and more.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_chooses_as_the_model_does() {
    // Of more than there are lanes, how many of each are looked at is estimated as if all jobs cost the same.
    for (size, off) in [(1, 6.0), (4, 6.0), (30, 12.0)] {
        chooses_as_the_model_does(size, off, false).await;
    }
    // Alike, so that what is next is known beforehand.
    for size in [1, 4] {
        chooses_as_the_model_does(size, 6.0, true).await;
    }
}

async fn chooses_as_the_model_does(size: usize, off: f64, alike: bool) {
    let house = House::new(12).await;
    let mut admin = house.admin().await;
    let mut model = Lanes::default();
    for no in 1..=12_i64 {
        let tenant = TenantNo::new(no).expect("positive");
        let weight = i32::try_from(1 + no % 5).expect("small");
        sqlx::query("INSERT INTO insula.lane (tenant_id, weight) VALUES ($1, $2)")
            .bind(no)
            .bind(weight)
            .execute(&mut admin)
            .await
            .expect("a lane");
        model.rule_lane(tenant, LaneRules { weight: u32::try_from(weight).expect("small"), cap: u32::MAX });
        for n in 0..40_i64 {
            let (cost, priority) = if alike { (1 + no % 6, 0) } else { (1 + (no * 7 + n * 3) % 6, n % 3) };
            let (cost, priority) = (i32::try_from(cost).expect("small"), i16::try_from(priority).expect("small"));
            let sql = "INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body, cost, rank)
                       VALUES ($1, gen_random_uuid(), now() + $2 * interval '1 ms', now(), 'nothing', 'null', $3, $4)";
            sqlx::query(sql).bind(no).bind(n).bind(cost).bind(-priority).execute(&mut admin).await.expect("a job");
            model.add(tenant, 0, priority, u32::try_from(cost).expect("small"), n);
        }
        sqlx::query("INSERT INTO insula.arrival (tenant_id, lane, rank, due) VALUES ($1, '', -9, '-infinity')")
            .bind(no)
            .execute(&mut admin)
            .await
            .expect("told");
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    while ours.len() < 480 {
        let sql = "SELECT tenant_id, cost FROM insula.work(1, '{}', '{}', '{}', $1)";
        let taken: Vec<(i64, i32)> =
            sqlx::query_as(sql).bind(i64::try_from(size).expect("small")).fetch_all(&mut admin).await.expect("jobs");
        assert!(!taken.is_empty(), "after {}", ours.len());
        for (no, cost) in taken {
            let next = model.take(0).expect("as many as there are");
            ours.push((next.tenant.get(), next.cost));
            theirs.push((no, u32::try_from(cost).expect("small")));
        }
    }
    assert!(model.take(0).is_none());
    // Ties between tenants are broken by number here and by place there: what must agree is who has had how much, at every moment.
    assert_eq!((ours.len(), theirs.len()), (480, 480));
    let mut ahead = [0.0_f64; 13];
    for (at, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        let weight = |no: i64| 1.0 + (no % 5) as f64;
        ahead[usize::try_from(a.0).expect("small")] += f64::from(a.1) / weight(a.0);
        ahead[usize::try_from(b.0).expect("small")] -= f64::from(b.1) / weight(b.0);
        // Those of one answer are in no order.
        assert!((at + 1) % size > 0 || ahead.iter().all(|ahead| ahead.abs() <= off), "{size} at a time, after {at}: {ahead:?}");
    }
}
