//! The life of a tenant's own cell under `insula up`: given up when its tenant cannot be made, also when `up` is killed meanwhile;
//! kept when its tenant is deleted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use insula_core::RootKey;
use insula_core::keys::Secret;
use insula_e2e::client::User;
use insula_e2e::up::{Up, bin, wait_for};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

const SOON: Duration = Duration::from_secs(60);

/// A tenant of this name cannot be seeded with [`cursed`].
const CURSED: &str = "Cursed Ltd";

/// Says so from the moment when the cell is to go, also when that was quick.
const GIVEN_UP: &str = "SELECT 'yes' WHERE EXISTS (SELECT FROM catalog.cell WHERE state = 'removing')
     OR NOT EXISTS (SELECT FROM catalog.tenant WHERE slug = 'cursed')";

fn bundle() -> Result<Value> {
    Ok(serde_json::from_slice(&Command::new(bin("acmedocs")?).arg("bundle").output()?.stdout)?)
}

/// The application's bundle with a seed that fails for one name: the cell is up and has its tables by then.
fn cursed() -> Result<Value> {
    let mut bundle = bundle()?;
    let seed = bundle["seed"].as_str().context("no seed")?;
    bundle["seed"] = json!(format!("SELECT 1 / (CASE WHEN $3::text = '{CURSED}' THEN 0 ELSE 1 END);\n{seed}"));
    Ok(bundle)
}

async fn put_bundle(up: &Up, bundle: &Value) -> Result<()> {
    let url = format!("{}/v1/bundle?wait=true", up.ready.control_url);
    let answer = reqwest::Client::new().put(url).bearer_auth(&up.ready.admin_key).json(bundle).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{status} {text}");
    Ok(())
}

async fn texts(up: &Up, sql: &'static str) -> Result<BTreeSet<String>> {
    let mut conn = PgConnection::connect(&up.ready.catalog_dsn).await?;
    let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut conn).await?;
    conn.close().await?;
    Ok(found.into_iter().collect())
}

fn names_in(folder: &Path) -> Result<BTreeSet<String>> {
    let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<Result<_>>()
}

/// All that names a cell anywhere: what runs, what lies in the folder, who has keys, what the catalog knows.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    processes: BTreeSet<String>,
    cells_to_reach: BTreeSet<String>,
    clusters: BTreeSet<String>,
    rings: BTreeSet<String>,
    keys_of_main: BTreeSet<String>,
    catalog: BTreeSet<String>,
}

async fn traces(up: &Up) -> Result<Traces> {
    let ready = up.ready_now()?;
    let run = up.data().join("run");
    let ring: Value = serde_json::from_slice(&std::fs::read(run.join("app-main.keys.json"))?)?;
    Ok(Traces {
        processes: ready.processes.into_iter().map(|p| p.role).collect(),
        cells_to_reach: ready.cells.into_iter().map(|c| c.name).collect(),
        clusters: names_in(&up.data().join("clusters"))?,
        rings: names_in(&run)?.into_iter().filter(|name| name.ends_with(".keys.json")).collect(),
        keys_of_main: ring["cells"].as_object().context("a ring of keys by cell")?.keys().cloned().collect(),
        catalog: texts(
            up,
            "SELECT 'cell ' || name FROM catalog.cell UNION SELECT 'database in ' || cell FROM catalog.cell_database
             UNION SELECT 'placement in ' || cell FROM catalog.placement UNION SELECT 'tenant ' || slug FROM catalog.tenant
             UNION SELECT 'migrations of ' || cell FROM catalog.migration_run",
        )
        .await?,
    })
}

/// Waits until nothing but `before` is there; the last look is the message when that does not come.
async fn as_before(up: &Up, before: &Traces) -> Result<()> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let now = traces(up).await?;
        if now == *before {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "before {before:#?}\nand now {now:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn nothing_is_orphaned(up: &Up) -> Result<()> {
    let text = std::fs::read_to_string(up.data().join("root.key"))?;
    let root = RootKey::new(Secret::from_hex(text.trim())?);
    let control = insula_control::Control::open(insula_control::Config::new(&up.ready.catalog_dsn, root)).await?;
    let orphans = insula_control::reconcile::orphans(&control).await?;
    ensure!(orphans.is_empty(), "{orphans:?}");
    Ok(())
}

/// Asks for a tenant that cannot be seeded, and returns when its cell's processes run: with their ids, and what is printed at the end.
async fn ask_for_cursed(up: &Up, before: &Traces) -> Result<(Vec<i32>, std::process::Child)> {
    let asked = Command::new(bin("insula")?)
        .args(["tenant", "create", "cursed", "--plan", "platinum", "--isolation", "cell", "--wait", "--json", "--name", CURSED])
        .env("INSULA_URL", &up.ready.control_url)
        .env("INSULA_KEY", &up.ready.admin_key)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let pids = wait_for(SOON, || {
        let new = up.ready_now()?.processes.into_iter().filter(|p| !before.processes.contains(&p.role));
        let pids: Vec<i32> = new.map(|p| p.pid).collect();
        Ok((pids.len() == 3).then_some(pids))
    })
    .context("the cell's server, application and worker")?;
    Ok((pids, asked))
}

fn all_gone(pids: &[i32]) -> Result<()> {
    wait_for(SOON, || Ok((!pids.iter().any(|pid| kill(Pid::from_raw(*pid), None).is_ok())).then_some(())))
}

#[tokio::test]
async fn a_tenant_that_cannot_be_made_takes_its_cell_along() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let up = Up::start(&data)?;
    put_bundle(&up, &cursed()?).await?;
    let before = traces(&up).await?;

    let (pids, asked) = ask_for_cursed(&up, &before).await?;
    let output = asked.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("division by zero"), "{said}");
    as_before(&up, &before).await?;
    all_gone(&pids)?;
    nothing_is_orphaned(&up).await?;
    let ended = texts(&up, "SELECT DISTINCT state FROM catalog.operation WHERE kind = 'tenant.provision'").await?;
    assert_eq!(ended, BTreeSet::from(["failed".to_owned()]));

    // `up` is killed while the cell is given up; the next one finishes it.
    let (pids, mut asked) = ask_for_cursed(&up, &before).await?;
    let deadline = tokio::time::Instant::now() + SOON;
    while texts(&up, GIVEN_UP).await?.is_empty() {
        ensure!(tokio::time::Instant::now() < deadline, "the cell is not given up");
    }
    up.kill()?;
    // Nobody is left to answer it.
    let _ = asked.kill();
    asked.wait()?;
    all_gone(&pids)?;
    let up = Up::start(&data)?;
    as_before(&up, &before).await?;
    nothing_is_orphaned(&up).await?;

    // The name is free again, and with a sound seed there is a tenant; this `up` has put the application's own.
    let tenant = up.tenant("cursed", "platinum", "cell")?;
    User::log_in(&up, &tenant).await?.write("Alive", "after all").await?;
    nothing_is_orphaned(&up).await?;
    up.stop()
}

#[tokio::test]
async fn a_deleted_tenant_keeps_its_cell_until_it_is_erased() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::start(&folder.path().join("data"))?;
    let tenant = up.tenant("going", "platinum", "cell")?;
    let user = User::log_in(&up, &tenant).await?;
    let id = user.write("Minutes", "of the last meeting").await?;
    let before = traces(&up).await?;

    up.insula(&["tenant", "delete", "going", "--yes"])?;
    let path = format!("/api/documents/{id}");
    let deadline = tokio::time::Instant::now() + SOON;
    while user.send(Method::GET, &path, None).await?.status() != StatusCode::NOT_FOUND {
        ensure!(tokio::time::Instant::now() < deadline, "a deleted tenant is still served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cell = up.ready_now()?.cells.into_iter().find(|c| !["main", "second"].contains(&c.name.as_str())).context("its cell")?;
    let refused = PgConnection::connect(&cell.app_dsn).await.err().context("its login still opens")?;
    ensure!(refused.to_string().contains("not permitted to log in"), "{refused}");
    nothing_is_orphaned(&up).await?;
    assert_eq!(traces(&up).await?, before, "deleting takes nothing away: that is erasure's");

    up.insula(&["tenant", "resume", "going"])?;
    let deadline = tokio::time::Instant::now() + SOON;
    while user.send(Method::GET, &path, None).await?.status() != StatusCode::OK {
        ensure!(tokio::time::Instant::now() < deadline, "a tenant whose deletion was taken back is not served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    up.stop()
}
