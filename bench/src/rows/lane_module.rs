//! The row `lane` again, on a server that offers the server module (`docs/decisions/0005-server-module.md`).

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::row::{Outcome, Row};

/// Row one of the speed table, with the module.
pub(crate) const ROW: Row = Row { name: "lane-module", about: "the same on servers that offer the server module", run };

const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/server-module");

fn run() -> Result<Vec<Outcome>> {
    let built = Command::new(BUILD).stderr(Stdio::inherit()).output().context(BUILD)?;
    ensure!(built.status.success(), "{BUILD} failed");
    let module = String::from_utf8(built.stdout)?;
    // A process of its own, because the servers look for the module in the environment.
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    let output = command
        .args(["--row", super::lane::ROW.name])
        .env("INSULA_SERVER_MODULE", module.trim())
        .stderr(Stdio::inherit())
        .output()?;
    let outcomes: Result<Vec<Outcome>, String> = serde_json::from_slice(&output.stdout).context("the row's answer")?;
    let module = |outcome: Outcome| Outcome { what: format!("{}, with the server module", outcome.what), ..outcome };
    Ok(outcomes.map_err(anyhow::Error::msg)?.into_iter().map(module).collect())
}
