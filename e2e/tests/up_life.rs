//! The life of `insula up`: first start, second `up`, kills of each process and of itself, Ctrl-C, next start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use insula_e2e::secrets::Secrets;
use insula_e2e::up::{Up, bin, kill_9, wait_for};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection};

const SOON: Duration = Duration::from_secs(60);

/// Whether the process does anything: what its dead parent has not waited for is gone too.
fn is_alive(pid: i32) -> bool {
    if kill(Pid::from_raw(pid), None).is_err() {
        return false;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

fn all_gone(pids: &[i32]) -> Result<()> {
    wait_for(SOON, || Ok((!pids.iter().any(|p| is_alive(*p))).then_some(())))
}

fn pids(up: &Up) -> Result<BTreeMap<String, i32>> {
    Ok(up.ready_now()?.processes.into_iter().map(|p| (p.role, p.pid)).collect())
}

async fn one(dsn: &str, sql: &'static str) -> Result<String> {
    let mut conn = PgConnection::connect(dsn).await?;
    Ok(sqlx::query_scalar(sql).fetch_one(&mut conn).await?)
}

fn slugs(up: &Up) -> Result<Vec<String>> {
    let list = up.insula(&["tenant", "list"])?;
    let items = list.get("items").and_then(|i| i.as_array()).or_else(|| list.as_array()).cloned().unwrap_or_default();
    Ok(items.iter().filter_map(|t| Some(t.get("slug")?.as_str()?.to_owned())).collect())
}

#[tokio::test]
async fn what_the_ready_file_says_is_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let up = Up::start(&data)?;
    let ready = up.ready.clone();

    for path in [data.join("ready.json"), data.with_extension("ready.json"), data.join("root.key"), data.join("admin.key")] {
        let mode = std::fs::metadata(&path)?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{} has mode {mode:o}", path.display());
    }
    let names: Vec<&str> = ready.cells.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["main", "second"]);
    for cell in &ready.cells {
        assert_eq!(one(&cell.app_dsn, "SELECT session_user::text").await?, "insula_app");
        assert_eq!(one(&cell.owner_dsn, "SELECT rolsuper::text FROM pg_roles WHERE rolname = session_user").await?, "true");
    }
    assert_eq!(one(&ready.catalog_dsn, "SELECT current_database()::text").await?, "insula_catalog");
    let roles: Vec<String> = pids(&up)?.into_keys().collect();
    let all =
        ["app:main", "app:second", "control", "gateway", "postgres:main", "postgres:second", "worker:main", "worker:second"];
    assert_eq!(roles, all);
    for process in &ready.processes {
        ensure!(is_alive(process.pid), "{} does not run", process.role);
        if let Some(url) = &process.admin_url {
            let status = reqwest::get(format!("{url}/readyz")).await?.status();
            ensure!(status.is_success(), "{}: {status}", process.role);
        }
    }
    Secrets::of(&up)?.nowhere_told(&up)?;
    second_up_is_refused(&data, &up)?;

    let running: Vec<i32> = pids(&up)?.into_values().collect();
    up.stop()?;
    all_gone(&running)?;
    ensure!(!data.join("ready.json").exists(), "the ready file outlives its processes");
    Ok(())
}

fn second_up_is_refused(data: &Path, up: &Up) -> Result<()> {
    for more in [&[][..], &["--fresh"][..]] {
        let second = Command::new(bin("insula")?).args(["up", "--no-demo", "--data"]).arg(data).args(more).output()?;
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        ensure!(second.status.code() == Some(4), "{:?}: {said}", second.status);
        ensure!(said.contains(&format!("process {}", up.pid())), "{said}");
    }
    ensure!(up.ready_now()?.processes.iter().all(|p| is_alive(p.pid)), "a refused `up` did harm");
    Ok(())
}

#[test]
fn whatever_is_killed_comes_back_and_nothing_is_lost() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let up = Up::start(&data)?;
    up.tenant("kept-row", "bronze", "row")?;
    up.tenant("kept-cell", "platinum", "cell")?;
    let before = pids(&up)?;
    ensure!(before.len() == 11, "the tenant's own cell is not in the ready file: {before:?}");

    for (role, pid) in &before {
        kill_9(*pid)?;
        wait_for(SOON, || Ok(up.pid_of_exactly(role).filter(|now| now != pid)))?;
    }
    // Every process is another now, and together they work.
    wait_for(SOON, || Ok(up.tenant("made-after", "silver", "schema").ok()))?;
    let mut there = slugs(&up)?;
    there.sort();
    assert_eq!(there, ["kept-cell", "kept-row", "made-after"]);

    let running: Vec<i32> = pids(&up)?.into_values().collect();
    up.kill()?;
    all_gone(&running)?;

    let up = Up::start(&data)?;
    let mut there = slugs(&up)?;
    there.sort();
    assert_eq!(there, ["kept-cell", "kept-row", "made-after"]);
    assert_eq!(pids(&up)?.len(), 11, "the tenant's own cell is started again");
    up.stop()
}

#[test]
fn a_folder_that_postgres_cannot_reach_will_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // As under /root: nobody else passes.
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed)?;
    let data = closed.join("data/deep");
    std::fs::create_dir(closed.join("data"))?;
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700))?;
    let up = Up::start(&data)?;
    up.stop()?;
    let up = Up::start(&data)?;
    up.stop()?;
    for cluster in std::fs::read_dir(data.join("clusters"))?.flatten() {
        let link = std::fs::symlink_metadata(cluster.path())?.is_symlink();
        ensure!(link == nix::unistd::Uid::effective().is_root());
        if link {
            std::fs::remove_dir_all(cluster.path().canonicalize()?)?;
        }
    }
    Ok(())
}

#[test]
fn a_user_without_rights_can_run_it() -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        // Then all the other tests are this one.
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777))?;
    for program in ["insula", "acmedocs"] {
        std::fs::copy(bin(program)?, folder.path().join(program))?;
    }
    let home = folder.path().join("home");
    std::fs::create_dir(&home)?;
    std::os::unix::fs::chown(&home, Some(65534), None)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=INT", "--"]).arg(folder.path().join("insula"));
    let up = Up::start_as(&home.join("data"), command, &["--no-demo"])?;
    up.tenant("plain", "gold", "database")?;
    up.stop()
}

#[tokio::test]
async fn a_server_that_the_user_names_will_do() -> Result<()> {
    let server = insula_testkit::durable_server().await;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    // By the environment: arguments are seen by everybody on the machine.
    let command = || -> Result<Command> {
        let mut command = Command::new(bin("insula")?);
        command.env("INSULA_CATALOG_SERVER", server.admin_url("postgres"));
        Ok(command)
    };
    let up = Up::start_as(&data, command()?, &["--no-demo"])?;
    let roles: Vec<String> = pids(&up)?.into_keys().collect();
    assert_eq!(roles, ["app:main", "control", "gateway", "worker:main"], "no server of our own");
    up.tenant("named-row", "bronze", "row")?;
    up.tenant("named-db", "gold", "database")?;
    up.stop()?;
    let up = Up::start_as(&data, command()?, &["--no-demo"])?;
    let mut there = slugs(&up)?;
    there.sort();
    assert_eq!(there, ["named-db", "named-row"]);
    assert_eq!(one(&up.ready.cells[0].app_dsn, "SELECT session_user::text").await?, "insula_app");
    up.stop()
}

#[test]
fn a_first_start_that_is_killed_halfway_is_begun_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711))?;
    let data = folder.path().join("data");
    // How far it has come shows in its folder: at work on the first files, servers made, catalog made, processes started.
    for sign in ["clusters/main/new", "clusters/main/postmaster.pid", "run/app-main.keys.json", "run/control.json"] {
        let mut child = Command::new(bin("insula")?)
            .args(["up", "--no-demo", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--data"])
            .arg(&data)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()?;
        let seen = wait_for(SOON, || {
            ensure!(child.try_wait()?.is_none(), "it ended before {sign}");
            Ok(data.join(sign).exists().then_some(()))
        });
        child.kill()?;
        child.wait()?;
        seen?;
        ensure!(!data.join("ready.json").exists() || sign == "run/control.json", "ready before {sign}");
    }
    let up = Up::start(&data)?;
    up.tenant("after-all", "gold", "database")?;
    up.stop()
}
