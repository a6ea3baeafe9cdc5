//! `insula load` before a whole `up`: a light tenant feels neither the heavy one beside it nor that the control plane is gone; and what the
//! command says and writes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use insula_e2e::up::{Tenant, Up, bin, kill_9, wait_for};
use insula_load::Report;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// The run of both tests: the heavy tenant at fifty times its plan.
const TENANTS: &str = "heavy:1000rps,light:10rps";

/// The command, with its reports in `folder`; both tenants ask for documents, logged in.
fn load(up: &Up, tenants: &[Tenant], folder: &Path, seconds: &str, expect: &str) -> Result<Command> {
    let mut command = Command::new(bin("insula")?);
    command.args(["load", "--tenants", TENANTS, "--seconds", seconds, "--expect", expect, "--data"]).arg(up.data());
    command.args(["--path", "/api/documents?limit=5", "--timeout", "60", "--json"]);
    for Tenant { slug, admin, .. } in tenants {
        command.args(["--login", &format!("{slug}={}:{}", admin.email, admin.password)]);
    }
    for file in ["r.json", "r.html"] {
        command.arg("--report").arg(folder.join(file));
    }
    command.stdin(Stdio::null());
    Ok(command)
}

/// Ends with this code; what it printed and wrote is the same, and a report as the library has it.
fn report(ended: &Output, code: i32, folder: &Path) -> Result<Report> {
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.code() == Some(code), "{}: {said}\n{}", ended.status, String::from_utf8_lossy(&ended.stdout));
    let report: Report = serde_json::from_slice(&ended.stdout)?;
    let written: Value = serde_json::from_slice(&std::fs::read(folder.join("r.json"))?)?;
    assert_eq!(written, serde_json::to_value(&report)?, "the report that it wrote is not the one that it printed");
    Ok(report)
}

fn page(folder: &Path) -> Result<String> {
    Ok(std::fs::read_to_string(folder.join("r.html"))?)
}

/// Waits until the gateway has answered requests of each of these tenants.
async fn at_work(up: &Up, slugs: &[&str]) -> Result<()> {
    let gateway = up.ready_now()?.processes.into_iter().find(|process| process.role == "gateway").context("no gateway")?;
    let top = format!("{}/top", gateway.admin_url.context("no admin port")?);
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let view: Value = reqwest::get(&top).await?.json().await?;
        let answered = |slug: &str| {
            let heavy = view["top"]["requests"].as_array().into_iter().flatten().find(|heavy| heavy["tenant"] == slug);
            // The log-in is one.
            heavy.is_some_and(|heavy| heavy["amount"].as_u64() > Some(5))
        };
        if slugs.iter().all(|slug| answered(slug)) {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "no load arrives: {view}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_light_tenant_feels_neither_its_neighbour_nor_the_loss_of_the_control_plane() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::start(&folder.path().join("data"))?;
    let tenants = [up.tenant("heavy", "bronze", "row")?, up.tenant("light", "silver", "row")?];

    // How fast is for a calm machine to say; that none fails holds on any.
    let expect = "light.p99<30s,light.errors<1%,heavy.throttled>1%";
    let mut command = load(&up, &tenants, folder.path(), "12", expect)?;
    let run = std::thread::spawn(move || command.output());
    at_work(&up, &["heavy", "light"]).await?;
    let mut killed = BTreeSet::new();
    while !run.is_finished() {
        // Each that `up` starts again, too: none lives to answer anything.
        if let Some(pid) = up.pid_of_exactly("control").filter(|pid| killed.insert(*pid)) {
            ensure!(kill_9(pid).is_ok() || killed.len() > 1, "there was no control plane to kill");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ended = run.join().expect("it does not panic")?;
    let report = report(&ended, 0, folder.path())?;
    let (heavy, light) = (report.tenant("heavy").context("no heavy")?, report.tenant("light").context("no light")?);
    assert_eq!((light.requests, light.errors), (120, 0), "{light:?}");
    ensure!(heavy.served > 0 && heavy.throttled > 0, "{heavy:?}");
    ensure!(killed.len() > 1, "it was killed {} times", killed.len());
    assert!(report.expectations.iter().all(|verdict| verdict.holds));
    let text = page(folder.path())?;
    for shown in [
        "Latency that this share of the requests kept below",
        "p99 latency, second by second",
        "All 3 expectations hold.",
        "light.p99&lt;30s",
        "light.errors&lt;1%",
    ] {
        ensure!(text.contains(shown), "the page has no {shown:?}: {text}");
    }
    // A line for each tenant in each plot.
    ensure!(text.matches("<polyline").count() >= 6, "{text}");
    println!(
        "control plane killed {} times; light p99 {} us of {} requests, heavy {} served of {}",
        killed.len(),
        light.latency.p99_us,
        light.requests,
        heavy.served,
        heavy.requests
    );

    // It is back when nobody kills it any more, and knows them.
    wait_for(SOON, || Ok(up.insula(&["tenant", "show", "light"]).ok()))?;
    what_fails_is_said(&up, &tenants, folder.path())?;
    up.stop()
}

/// An expectation that nothing can meet, beside one that holds.
fn what_fails_is_said(up: &Up, tenants: &[Tenant], folder: &Path) -> Result<()> {
    let ended = load(up, tenants, folder, "1", "light.p99<1us,light.errors<1%")?.output()?;
    let report = report(&ended, 4, folder)?;
    let verdicts: Vec<_> = report.expectations.iter().map(|v| (v.expectation.as_str(), v.holds)).collect();
    assert_eq!(verdicts, [("light.p99<1us", false), ("light.errors<1%", true)]);
    let said = String::from_utf8(ended.stderr)?;
    ensure!(said.contains("not as expected: light.p99<1us was ") && !said.contains("light.errors"), "{said}");
    ensure!(page(folder)?.contains("1 of 2 expectations fail."), "{}", page(folder)?);
    Ok(())
}
