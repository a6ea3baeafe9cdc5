//! The disk is full: writes are refused clearly, nothing that was acknowledged is lost, and with room again all goes on.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use insula_e2e::client::User;
use insula_e2e::up::{Up, bin};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::writers::{all_there, until};

/// A data folder that is a file system of its own, seen by `up` and what it starts alone, and gone with them.
fn on_a_small_disk(data: &Path) -> Result<Command> {
    let mut command = Command::new("unshare");
    let mut script = r#"mount -t tmpfs -o size=700m,mode=711 small "$0" && exec "#.to_owned();
    if nix::unistd::Uid::effective().is_root() {
        command.args(["--mount", "--propagation", "private"]);
    } else {
        // Whoever is root in a namespace may mount; in one inside it he is himself again, as Postgres wants him.
        let (user, group) = (nix::unistd::Uid::effective(), nix::unistd::Gid::effective());
        command.args(["--user", "--map-root-user", "--mount", "--propagation", "private"]);
        script += &format!("unshare --user --map-user={user} --map-group={group} -- ");
    }
    command.args(["sh", "-c", &format!("{script}\"$@\"")]).arg(data).arg(bin("insula")?);
    Ok(command)
}

/// What takes the room that is left.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(up: &Up) -> Result<Self> {
        let path = Path::new("/proc").join(up.pid().to_string()).join("root").join(up.data().strip_prefix("/")?).join("ballast");
        let mut file = std::fs::File::create(&path)?;
        ensure!(!up.data().join("ballast").exists(), "that is everybody's disk");
        match std::io::copy(&mut std::io::repeat(7).take(1 << 30), &mut file) {
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(Self(path)),
            other => bail!("the disk is not full: {other:?}"),
        }
    }

    fn take_away(self) -> Result<()> {
        Ok(std::fs::remove_file(self.0)?)
    }
}

fn is_a_clear_refusal(status: StatusCode, answer: &Value) -> Result<()> {
    let text = answer.to_string().to_lowercase();
    ensure!(status == StatusCode::SERVICE_UNAVAILABLE && answer["title"].is_string(), "{status} {answer}");
    ensure!(
        !["device", "postgres", "insula_", "53100", "relation"].iter().any(|t| text.contains(t)),
        "too much is told: {answer}"
    );
    Ok(())
}

/// Writes until the disk refuses; what was acknowledged.
async fn write_until_refused(user: &User) -> Result<Vec<String>> {
    let mut acknowledged = Vec::new();
    for round in 0..2_000_u32 {
        // Does not compress, so it needs room.
        let body: String = (0..200_u32).map(|n| format!("{:08x} ", (round * 1000 + n).wrapping_mul(2_654_435_761))).collect();
        let (status, answer) =
            user.json(Method::POST, "/api/documents", Some(&json!({"title": "Much", "body": body, "tags": []}))).await?;
        if status != StatusCode::CREATED {
            is_a_clear_refusal(status, &answer)?;
            return Ok(acknowledged);
        }
        acknowledged.push(answer["id"].as_str().unwrap().to_owned());
    }
    bail!("a full disk takes {} documents", acknowledged.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_clearly_and_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let up = Up::start_as(&data, on_a_small_disk(&data)?, &["--no-demo"])?;
    let (mut users, mut acknowledged) = (Vec::new(), Vec::new());
    for (slug, plan, isolation) in [("full-row", "bronze", "row"), ("full-db", "gold", "database")] {
        let tenant = up.tenant(slug, plan, isolation)?;
        users.push(User::log_in(&up, &tenant).await?);
    }
    for (tenant, user) in users.iter().enumerate() {
        acknowledged.push((tenant, user.write("Before", "there was room").await?));
    }

    let ballast = Ballast::fill(&up)?;
    for (tenant, user) in users.iter().enumerate() {
        acknowledged.extend(write_until_refused(user).await?.into_iter().map(|id| (tenant, id)));
        // Reading needs no room; while the server recovers from a log that it could not write, it is refused as clearly.
        let (status, answer) = user.json(Method::GET, "/api/documents?limit=1", None).await?;
        if status != StatusCode::OK {
            is_a_clear_refusal(status, &answer)?;
        }
    }
    // A sign-up is refused, or accepted and then waits for room.
    let order = up.insula(&["tenant", "create", "squeezed", "--plan", "silver", "--isolation", "schema"]);
    if let Err(error) = &order {
        let said = format!("{error:#}");
        ensure!(said.contains("try again"), "a sign-up on a full disk: what to do? {said}");
    }
    println!("{} documents acknowledged until the disk was full", acknowledged.len());

    ballast.take_away()?;
    for (tenant, user) in users.iter().enumerate() {
        let mut written = None;
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(90);
        while written.is_none() && std::time::Instant::now() < limit {
            written = user.write("After", "there is room").await.ok();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        ensure!(written.is_some(), "tenant {tenant} cannot write although there is room");
    }
    all_there(&users, &acknowledged).await?;
    if order.is_err() {
        up.tenant("squeezed", "silver", "schema")?;
    }
    until("the sign-up goes through", || up.insula(&["tenant", "show", "squeezed"]).is_ok_and(|t| t["state"] == "active"))
        .await?;
    up.insula(&["lint"])?;
    up.stop()
}
