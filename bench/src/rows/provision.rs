//! Provisioning, from the request to a tenant at work, in each isolation; and a thousand at once.
//!
//! Through the control plane's own calls, on a private Postgres that syncs every commit. The password's hash is handed in: making one
//! costs what argon2 is set to cost. The application has twelve tables with foreign keys and a seed of three statements.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use insula_control::config::CellSpec;
use insula_control::model::{Bundle, CreateTenant, Migration, OperationState};
use insula_control::{Config, Control};
use insula_core::{Isolation, OperationId};
use insula_testkit::TestServer;

use crate::row::{Outcome, Row, Target};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "provision", about: "a new tenant in each isolation, and 1,000 row tenants at once", run };

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$KJTsXE4nFcOOXDkzeUDs8w";
const LONG: Duration = Duration::from_secs(120);
const EACH: usize = 41;
const WARM: u32 = 44;
const TABLES: usize = 12;
const AT_ONCE: usize = 1_000;

fn run() -> Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<Vec<Outcome>> {
    let server = insula_testkit::durable_server().await;
    let control = open(&server).await?;
    let background = control.start().await?;
    control.wait_ready(LONG).await?;
    if let Some(operation) = control.put_bundle("bench", bundle()).await?.operation {
        finish(&control, operation.id).await?;
    }
    warm(&control).await?;
    let mut outcomes = Vec::new();
    for (isolation, most, what) in [
        (Isolation::Row, 15.0, "a new `row` tenant"),
        (Isolation::Schema, 150.0, "a new `schema` tenant (12 tables)"),
        (Isolation::Database, 60.0, "a new `database` tenant from the warm pool"),
    ] {
        outcomes.push(one_by_one(&control, isolation, most, what).await?);
    }
    outcomes.push(at_once(&control).await?);
    let orphans = insula_control::reconcile::orphans(&control).await?;
    if !orphans.is_empty() {
        bail!("orphans: {orphans:?}");
    }
    background.stop().await;
    Ok(outcomes)
}

async fn open(server: &TestServer) -> Result<Control> {
    let mut admin = server.admin("postgres").await;
    sqlx::query("CREATE DATABASE insula_catalog").execute(&mut admin).await?;
    let mut config = Config::new(server.admin_url("insula_catalog"), server.root_key());
    config.cells = vec![CellSpec {
        name: server.cell(),
        region: "local".into(),
        labels: vec![],
        host: server.host().into(),
        port: server.port(),
        app_url: None,
        capacity: 1_000_000,
    }];
    config.warm_databases = WARM;
    Ok(Control::open(config).await?)
}

/// Twelve tables, each but the first with a foreign key to the one before.
fn bundle() -> Bundle {
    let mut sql = String::from(
        "CREATE TABLE users (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email text NOT NULL UNIQUE, hash text);\n",
    );
    for n in 2..=TABLES {
        let before = if n == 2 { "users".to_owned() } else { format!("t{}", n - 1) };
        sql += &format!(
            "CREATE TABLE t{n} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), parent uuid REFERENCES {before}, name text NOT NULL,
                 data jsonb NOT NULL DEFAULT '{{}}', made_at timestamptz NOT NULL DEFAULT now());
             CREATE INDEX ON t{n} (made_at);\n"
        );
    }
    sql += "SELECT insula.tenant_table('users');\n";
    for n in 2..=TABLES {
        sql += &format!("SELECT insula.tenant_table('t{n}');\n");
    }
    Bundle {
        migrations: vec![Migration { version: 1, name: "twelve tables".into(), sql }],
        seed: "INSERT INTO users (email, hash) VALUES ($1, $2);
               INSERT INTO t2 (parent, name) SELECT id, $3 FROM users;
               INSERT INTO t3 (name, data) VALUES ('settings', $4)"
            .into(),
    }
}

async fn warm(control: &Control) -> Result<()> {
    let deadline = Instant::now() + LONG;
    while control.status().await?.warm.values().sum::<i64>() < i64::from(WARM) {
        if Instant::now() > deadline {
            bail!("the warm pool does not fill");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn finish(control: &Control, id: OperationId) -> Result<()> {
    let operation = control.wait_operation(id, LONG).await?;
    if operation.state == OperationState::Done { Ok(()) } else { bail!("{operation:?}") }
}

async fn make(control: &Control, slug: String, isolation: Isolation) -> Result<OperationId> {
    let mut create = CreateTenant::new(slug.parse()?, "bronze".parse()?);
    create.isolation = Some(isolation);
    create.admin_password_hash = Some(HASH.into());
    let created = control.create_tenant("bench", create, None).await?;
    finish(control, created.operation.id).await?;
    Ok(created.operation.id)
}

/// Milliseconds of each step, median over the operations: from the events that each leaves.
async fn steps(control: &Control, ids: &[OperationId]) -> Result<String> {
    let mut steps: Vec<(String, Vec<i64>)> = Vec::new();
    for id in ids {
        let mut begun = None;
        for event in control.operation_events(*id, 0).await? {
            match (event.what.as_str(), begun) {
                ("started", _) => begun = Some(event.at),
                ("done", Some(at)) => {
                    let took = (event.at - at).num_microseconds().unwrap_or(i64::MAX);
                    match steps.iter_mut().find(|(step, _)| *step == event.step) {
                        Some((_, all)) => all.push(took),
                        None => steps.push((event.step, vec![took])),
                    }
                }
                _ => {}
            }
        }
    }
    let median = |(step, mut all): (String, Vec<i64>)| {
        all.sort_unstable();
        format!("{step} {:.1}", all[all.len() / 2] as f64 / 1e3)
    };
    Ok(steps.into_iter().map(median).collect::<Vec<_>>().join(", "))
}

async fn one_by_one(control: &Control, isolation: Isolation, most: f64, what: &str) -> Result<Outcome> {
    let (mut times, mut ids) = (Vec::with_capacity(EACH), Vec::with_capacity(EACH));
    for n in 0..EACH {
        let started = Instant::now();
        ids.push(make(control, format!("{isolation}-{n}"), isolation).await?);
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (p50, p95) = (times[EACH / 2], times[EACH * 95 / 100]);
    let steps = steps(control, &ids).await?;
    let detail = format!(
        "{EACH} one after the other; p95 {p95:.1} ms, fastest {:.1} ms; steps without their commits, ms: {steps}",
        times[0]
    );
    Ok(Outcome::figure(format!("{what}, p50"), p50, "ms", Target::AtMost(most), detail))
}

async fn at_once(control: &Control) -> Result<Outcome> {
    let started = Instant::now();
    let made: Vec<_> = (0..AT_ONCE)
        .map(|n| {
            let control = control.clone();
            tokio::spawn(async move { make(&control, format!("crowd-{n}"), Isolation::Row).await })
        })
        .collect();
    for made in made {
        made.await??;
    }
    let took = started.elapsed().as_secs_f64();
    let detail = format!("{AT_ONCE} asked for at once, all at work after {took:.2} s");
    Ok(Outcome::figure("1,000 new `row` tenants at once", AT_ONCE as f64 / took, "a second", Target::AtLeast(100.0), detail))
}
