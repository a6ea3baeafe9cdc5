//! `kill -9` of a worker that has jobs in hand: all of them are done by the next, and nobody is told of anything that was not so.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use insula_e2e::client::User;
use insula_e2e::up::{Tenant, Up, kill_9};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::exports::files;
use crate::receiver::{Receiver, of};
use crate::stage::{ask_for_export, database_of, export_is, follow, until};

const DOCUMENTS: usize = 8;
const EXPORTS: usize = 2;
const WORKER: &str = "worker:main";

/// A tenant at work, and what is to come of it.
struct Busy {
    tenant: Tenant,
    user: User,
    receiver: Receiver,
    secret: String,
    documents: BTreeSet<String>,
    exports: BTreeSet<String>,
}

impl Busy {
    async fn begin(up: &Up, isolation: &str) -> Result<Self> {
        let slug = format!("killed-{isolation}");
        let place = ["--plan", "gold", "--isolation", isolation, "--cell", "main", "--wait"];
        let tenant: Tenant = serde_json::from_value(up.insula(&[&["tenant", "create", &slug], &place[..]].concat())?)?;
        let user = User::log_in(up, &tenant).await?;
        let receiver = Receiver::open().await?;
        let secret = receiver.hook(&user, &["*"]).await?;
        receiver.hold();
        Ok(Self { tenant, user, receiver, secret, documents: BTreeSet::new(), exports: BTreeSet::new() })
    }

    async fn write(&mut self) -> Result<()> {
        for n in 0..DOCUMENTS {
            self.documents.insert(self.user.write(&format!("Note {n}"), "told of once").await?);
        }
        Ok(())
    }

    async fn export(&mut self) -> Result<()> {
        for _ in 0..EXPORTS {
            self.exports.insert(ask_for_export(&self.user).await?);
        }
        Ok(())
    }

    /// Every change was told, and every export; each as one event, whoever had it in hand.
    async fn is_whole(&self, up: &Up) -> Result<()> {
        for id in &self.exports {
            let done = export_is(&self.user, id, "done").await?;
            assert_eq!(done["progress"]["documents"], json!(DOCUMENTS), "{done}");
            let answer = follow(up, &self.tenant.slug, done["download"].as_str().context("no link")?).await?;
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(files(answer.bytes().await?.to_vec())?.len(), DOCUMENTS + 1);
            let kept = objects(&up.data().join("objects"), id)?;
            ensure!(kept.len() == 1, "what an attempt left behind: {kept:?}");
        }
        let told = self.receiver.events(&self.secret, DOCUMENTS + EXPORTS).await?;
        assert_eq!(of(&told, "document.created"), self.documents);
        assert_eq!(of(&told, "export.ready"), self.exports);
        // Nothing is left to do, or was given up.
        for state in ["waiting", "running", "dead"] {
            until(&format!("no job {state}"), async || {
                let list = up.insula(&["job", "list", &self.tenant.slug, "--state", state])?;
                Ok((list["items"] == json!([])).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// The files in the store that are of this export.
fn objects(folder: &Path, export: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.to_string_lossy().contains(export) => found.push(path.display().to_string()),
                false => {}
            }
        }
    }
    Ok(found)
}

/// Kills the worker once it has posted for each tenant, beyond what came `before`: that is not answered, so it has it in hand. What had come.
async fn kill_in_the_middle(up: &Up, busy: &[Busy], before: &[usize]) -> Result<Vec<usize>> {
    let has_some = || busy.iter().zip(before).all(|(busy, before)| busy.receiver.count() > *before);
    until("posts in hand", async || Ok(has_some().then_some(()))).await?;
    let pid = up.pid_of_exactly(WORKER).context("no worker")?;
    kill_9(pid)?;
    until("another worker", async || Ok(up.pid_of_exactly(WORKER).filter(|now| *now != pid))).await?;
    Ok(busy.iter().map(|busy| busy.receiver.count()).collect())
}

pub(crate) async fn a_killed_worker_costs_no_job(up: &Up) -> Result<()> {
    let mut busy = Vec::new();
    for isolation in ["row", "schema", "database"] {
        busy.push(Busy::begin(up, isolation).await?);
    }
    for busy in &mut busy {
        busy.write().await?;
    }
    // The exports of the last come as far as the index, which lists tags: all its documents are in the file by then.
    let mut database = database_of(up, &busy[2].tenant).await?;
    let mut held = database.begin().await?;
    sqlx::query("LOCK TABLE app.tags IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await?;
    for busy in &mut busy {
        busy.export().await?;
    }
    for id in &busy[2].exports {
        export_is(&busy[2].user, id, "running").await?;
    }
    let came = kill_in_the_middle(up, &busy, &[0; 3]).await?;
    // The next one, too.
    kill_in_the_middle(up, &busy, &came).await?;
    held.rollback().await?;
    database.close().await?;
    for busy in &busy {
        busy.receiver.release();
    }
    for busy in &busy {
        busy.is_whole(up).await.with_context(|| busy.tenant.slug.clone())?;
    }
    // Watched for a moment: who is late with a sign of life shows in another.
    until("a worker that is alive", async || {
        let workers = up.insula(&["worker", "list", "--cell", "main"])?;
        let alive = |worker: &Value| worker["alive"] == true;
        Ok(workers["items"].as_array().is_some_and(|items| items.iter().any(alive)).then_some(()))
    })
    .await
}
