//! Caps, rates and the breaker.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use insula_core::FeatureValue;
use insula_jobs::{Enqueue, Job, JobContext, JobError, Jobs, KindRules, send, send_all};
use serde::{Deserialize, Serialize};

use crate::house::{ByHand, House, Note, Nothing, QUICK};

/// How many ran at once.
struct Gauge {
    now: AtomicI64,
    most: AtomicI64,
}

impl Gauge {
    const fn new() -> Self {
        Self { now: AtomicI64::new(0), most: AtomicI64::new(0) }
    }

    async fn work(&self) {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(30)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self) -> i64 {
        self.most.load(Ordering::SeqCst)
    }
}

static EXPORTS: Gauge = Gauge::new();
static SCANS: Gauge = Gauge::new();
static PRINTS: Gauge = Gauge::new();

#[derive(Serialize, Deserialize)]
struct Export;

impl Job for Export {
    const KIND: &'static str = "export";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { cap: Some(9), cap_feature: Some("max_concurrent_exports"), ..KindRules::default() }
    }
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        EXPORTS.work().await;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Print;

impl Job for Print {
    const KIND: &'static str = "print";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { cap: Some(2), ..KindRules::default() }
    }
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        PRINTS.work().await;
        Ok(())
    }
}

/// Two kinds that share the tenant's cap.
#[derive(Serialize, Deserialize)]
struct Scan;
#[derive(Serialize, Deserialize)]
struct Rescan;

impl Job for Scan {
    const KIND: &'static str = "scan";
    type Output = ();
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        SCANS.work().await;
        Ok(())
    }
}

impl Job for Rescan {
    const KIND: &'static str = "rescan";
    type Output = ();
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        SCANS.work().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_s_cap_by_plan_holds_over_workers_and_holds_up_no_other_kind() {
    let house = House::new(1).await;
    let feature = ("max_concurrent_exports".to_owned(), insula_core::Override::Value(FeatureValue::Number(2)));
    house.change(1, |row| row.features = [feature].into()).await;
    let kinds = Jobs::new().with::<Export>().with::<Note>();
    let workers = [house.worker(kinds.clone()), house.worker(kinds)];
    let exports: Vec<Export> = (0..30).map(|_| Export).collect();
    let first = Enqueue { priority: 9, retention: Some(Duration::from_secs(600)), ..Enqueue::default() };
    send_all(&house.data, &house.tenant(1), &exports, &first).await.expect("sent");
    send(&house.data, &house.tenant(1), &Note::new("other", 0), &Enqueue::default()).await.expect("sent");
    house.until("the other kind", "SELECT count(*) = 1 FROM app.done").await;
    house.empty().await;
    let later = "SELECT count(*) FROM insula.job_end WHERE kind = 'export' AND ended_at > (SELECT at FROM app.done)";
    assert!(house.count(later).await > 0, "it did not wait for the exports");
    assert_eq!(EXPORTS.most(), 2, "never more than the plan's, and not fewer");
    for worker in workers {
        worker.stop().await;
    }
}

/// By SQL of the tenant's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_kind_s_cap_holds_in_whatever_lane_its_jobs_lie() {
    let house = House::new(1).await;
    let mut tx = house.data.begin(&house.tenant(1)).await.expect("a transaction");
    for lane in ["", "note", "mine", "print"] {
        // With one attempt each: those that are moved are not counted.
        let sql = "SELECT insula.enqueue('print', array_agg(gen_random_uuid()), array_agg('null'::text), lane => $1, attempts => 1, retention_s => 600)
                     FROM generate_series(1, 10)";
        let given: i64 = sqlx::query_scalar(sql).bind(lane).fetch_one(&mut tx).await.expect("enqueued");
        assert_eq!(given, 10);
    }
    // Another kind's in its lane do not change what holds there.
    let sql = "SELECT insula.enqueue('note', array_agg(gen_random_uuid()), array_agg('{\"what\":\"x\",\"millis\":0}'::text), lane => 'print', priority => 1::smallint)
                 FROM generate_series(1, 10)";
    sqlx::query(sql).execute(&mut tx).await.expect("enqueued");
    tx.commit().await.expect("committed");
    let kinds = Jobs::new().with::<Print>().with::<Note>();
    let workers = [house.worker(kinds.clone()), house.worker(kinds)];
    house.empty().await;
    assert_eq!(PRINTS.most(), 2, "never more than the kind's, and not fewer");
    assert_eq!(house.count("SELECT count(*) FROM insula.job_end WHERE outcome = 'done' AND lane = 'print'").await, 40);
    assert_eq!(house.count("SELECT count(*) FROM app.done").await, 10);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_s_own_cap_holds_over_kinds() {
    let house = House::new(2).await;
    let feature = ("max_concurrent_jobs".to_owned(), insula_core::Override::Value(FeatureValue::Number(3)));
    house.change(1, |row| row.features = [feature].into()).await;
    let (scans, rescans): (Vec<Scan>, Vec<Rescan>) = (0..20).map(|_| (Scan, Rescan)).unzip();
    send_all(&house.data, &house.tenant(1), &scans, &Enqueue::default()).await.expect("sent");
    send_all(&house.data, &house.tenant(1), &rescans, &Enqueue::default()).await.expect("sent");
    let worker = house.worker(Jobs::new().with::<Scan>().with::<Rescan>());
    house.empty().await;
    // Those that came before its cap was known are given back, and not run.
    assert_eq!(SCANS.most(), 3, "never more than the tenant's, and not fewer");
    worker.stop().await;
}

#[derive(Serialize, Deserialize)]
struct Mail;

impl Job for Mail {
    const KIND: &'static str = "mail";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { rate: Some(20.0), ..KindRules::default() }
    }
    async fn run(self, context: JobContext) -> Result<(), JobError> {
        Note::new("mail", 0).run(context).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_for_each_tenant() {
    let house = House::new(2).await;
    let worker = house.worker(Jobs::new().with::<Mail>());
    let mails: Vec<Mail> = (0..50).map(|_| Mail).collect();
    let before = house.count("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").await;
    for no in [1, 2] {
        send_all(&house.data, &house.tenant(no), &mails, &Enqueue::default()).await.expect("sent");
    }
    house.empty().await;
    // A burst of twenty, and thirty more at twenty in a second: whenever the first began, the last was not done before.
    let last = "SELECT (extract(epoch FROM max(at)) * 1000)::bigint FROM app.done WHERE tenant_id = ";
    for no in [1, 2] {
        let took = house.count(&format!("{last}{no}")).await - before;
        assert!(took >= 1_490, "{took} ms");
    }
    worker.stop().await;
}

/// Two lines of one tenant take turns under its cap, and neither turn hides the tenant from those who choose: whatever others do, it has its share.
#[tokio::test]
async fn lines_of_one_tenant_take_turns_under_its_cap_and_it_has_its_share() {
    for want in [1, 3, 20] {
        let house = House::new(2).await;
        let mut hand = ByHand::new(&house).await;
        let many = |count: usize| (0..count).map(|_| Nothing).collect::<Vec<_>>();
        send_all(&house.data, &house.tenant(1), &many(30), &Enqueue::default()).await.expect("sent");
        send_all(&house.data, &house.tenant(1), &(0..30).map(|_| Export).collect::<Vec<_>>(), &Enqueue::default())
            .await
            .expect("sent");
        send_all(&house.data, &house.tenant(2), &many(600), &Enqueue::default()).await.expect("sent");
        let mut done = hand.work(&[], 1).await;
        let told =
            serde_json::json!([{ "t": 1, "l": "", "w": 1, "tc": 1, "m": 1 }, { "t": 1, "l": "export", "w": 1, "tc": 1, "m": 1 }]);
        sqlx::query("SELECT insula.tell_lanes($1)").bind(told).execute(&mut hand.admin).await.expect("told");
        // One of them stands far ahead of the other, as after a pause, and others have gone on meanwhile.
        hand.work(&done, 0).await;
        sqlx::query("UPDATE insula.lane SET start = 20 * 80640 WHERE lane = 'export' OR tenant_id = 2")
            .execute(&mut hand.admin)
            .await
            .expect("set");
        sqlx::query("UPDATE insula.queue SET present = 20 * 80640").execute(&mut hand.admin).await.expect("set");
        let (mut started, mut left) = (if done[0].0 == 1 { [1, 0] } else { [0, 1] }, 659);
        done.clear();
        while left > 0 {
            done = hand.work(&done, want).await;
            assert!(!done.is_empty(), "{want}: {left} wait, and nothing starts");
            left -= done.len();
            let own = done.iter().filter(|(tenant, _)| *tenant == 1).count();
            assert!(own <= 1, "its cap");
            started[0] += own;
            started[1] += done.len() - own;
            if started[0] == 40 {
                let lanes = "SELECT count(*) FROM (SELECT count(*) FROM insula.job WHERE tenant_id = 1 AND state = 'w' GROUP BY lane HAVING count(*) BETWEEN 9 AND 11) x";
                assert_eq!(house.count(lanes).await, 2, "{want}: they take turns");
            }
            // One in each take, or as many as the other.
            assert!(
                started[0] == 60 || started[1] <= (started[0] + 4) * usize::try_from(want).expect("small").max(2),
                "{want}: {started:?}"
            );
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Poison;

impl Job for Poison {
    const KIND: &'static str = "poison";
    type Output = ();
    fn rules() -> KindRules {
        KindRules { attempts: 100, backoff: QUICK, ..KindRules::default() }
    }
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        Err(JobError::retry("always"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_stops_its_own_tenant_s_lane_alone() {
    let house = House::new(2).await;
    let worker = house.worker(Jobs::new().with::<Poison>().with::<Note>());
    let poison: Vec<Poison> = (0..200).map(|_| Poison).collect();
    send_all(&house.data, &house.tenant(1), &poison, &Enqueue::default()).await.expect("sent");
    house
        .until(
            "the breaker",
            "SELECT count(*) = 1 FROM insula.lane WHERE tenant_id = 1 AND failures >= 10 AND wake_at IS NOT NULL AND NOT ready",
        )
        .await;
    let notes: Vec<Note> = (0..50).map(|_| Note::new("x", 0)).collect();
    send_all(&house.data, &house.tenant(2), &notes, &Enqueue::default()).await.expect("sent");
    house.until("the other's", "SELECT count(*) = 50 FROM app.done").await;
    assert_eq!(house.count("SELECT count(*) FROM insula.job WHERE tenant_id = 1").await, 200, "nothing is lost");
    worker.stop().await;
}
