//! What metrics say of a queue: who waits in each tier, and who waits for longer than he may have to.

use std::time::Duration;

use insula_jobs::{Enqueue, Job, JobContext, JobError, Jobs, WorkerConfig, send};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::house::{House, Nothing};

static HELD: Semaphore = Semaphore::const_new(0);

/// Has the worker's only place until the test lets it go.
#[derive(Serialize, Deserialize)]
struct Holds;

impl Job for Holds {
    const KIND: &'static str = "holds";
    type Output = ();
    async fn run(self, _: JobContext) -> Result<(), JobError> {
        let _ = HELD.acquire().await;
        Ok(())
    }
}

/// In a cell where no other test of this process is, because metrics are the process's.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_waits_beyond_its_bound_is_shown_in_its_tier_however_many_wait_in_others() {
    let meters = insula_telemetry::meters::install().expect("a recorder");
    let house = House::on(insula_testkit::second_server().await, 8).await;
    for (no, plan) in [(6, "silver"), (7, "gold")] {
        house.change(no, |row| row.plan = plan.parse().expect("a name")).await;
    }
    let config = WorkerConfig { concurrency: 1, ahead: Duration::ZERO, ..house.config() };
    let worker = house.worker_with(Jobs::new().with::<Holds>().with::<Nothing>(), config);
    send(&house.data, &house.tenant(8), &Holds, &Enqueue::default()).await.expect("sent");
    house.until("its place to be taken", "SELECT count(*) = 1 FROM insula.job WHERE state = 'r'").await;
    // Bronze ones wait for longest, and there are many, most of them of tenants that this process does not know yet.
    let wait = "INSERT INTO insula.lane (tenant_id, ready, since, weight, told)
        SELECT n, true, now() - interval '12 minutes', 1, 0 FROM generate_series(1001, 2200) n
        UNION ALL SELECT n, true, now() - interval '13 minutes', 1, 0 FROM generate_series(1, 5) n
        UNION ALL VALUES (6, true, now(), 2, 2), (7, true, now() - interval '10 minutes', 4, 4)";
    sqlx::raw_sql(wait).execute(&mut house.admin().await).await.expect("lanes");
    let shown = |name: &str, label: &str| -> Option<f64> {
        let text = meters.render("test");
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}{{")) && line.contains("cell=\"second\"") && line.contains(label))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let until = async |what: &str, met: &dyn Fn() -> bool| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !met() {
            assert!(tokio::time::Instant::now() < deadline, "waited in vain for: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let starving = |tier: &str| shown("insula_jobs_starving", &format!("tier=\"{tier}\""));
    until("all lanes", &|| shown("insula_jobs_lanes", "state=\"ready\"") == Some(1_207.0)).await;
    // Said one after the other.
    until("who starves", &|| ["bronze", "silver", "gold"].map(starving) == [Some(5.0), Some(0.0), Some(1.0)]).await;
    let oldest = |tier: &str| shown("insula_jobs_oldest_wait_seconds", &format!("tier=\"{tier}\"")).expect("a figure");
    assert!((600.0..660.0).contains(&oldest("gold")), "{}", oldest("gold"));
    assert!((780.0..840.0).contains(&oldest("bronze")), "{}", oldest("bronze"));
    assert!(oldest("silver") < 60.0, "{}", oldest("silver"));
    // Looked at, they turn out to have nothing.
    HELD.add_permits(1);
    until("nobody to starve", &|| starving("gold") == Some(0.0) && starving("bronze") == Some(0.0)).await;
    worker.stop().await;
}
