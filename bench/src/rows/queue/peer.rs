//! graphile-worker in a node process, on a database of its own in the same server.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::ground::Ground;

/// The peer, when it is installed.
pub(super) struct Peer {
    folder: Option<PathBuf>,
    url: String,
}

impl Peer {
    pub(super) async fn new(ground: &Ground) -> Result<Self> {
        let folder = std::env::var_os("INSULA_BENCH_QUEUE").map(PathBuf::from);
        let mut admin = ground.server.admin("postgres").await;
        sqlx::raw_sql("CREATE DATABASE peer").execute(&mut admin).await?;
        Ok(Self { folder, url: ground.server.admin_url("peer") })
    }

    /// Runs a command of the script; jobs per second, where it says so.
    fn call(&self, words: &[&str]) -> Result<Option<f64>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let output =
            Command::new("node").arg("graphile.mjs").args(words).current_dir(folder).env("DATABASE_URL", &self.url).output()?;
        ensure!(output.status.success(), "the peer failed: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(line) = text.lines().rfind(|line| line.starts_with('{')) else { return Ok(None) };
        let said: serde_json::Value = serde_json::from_str(line)?;
        said["jobs_s"].as_f64().map(Some).context("no figure")
    }

    pub(super) fn insert_one(&self, jobs: i64) -> Result<Option<f64>> {
        self.call(&["setup"])?;
        self.call(&["insert1", &jobs.to_string()])
    }

    pub(super) fn insert_batch(&self, jobs: i64) -> Result<Option<f64>> {
        self.call(&["setup"])?;
        self.call(&["insertb", &jobs.to_string()])
    }

    /// Those that were inserted last, by the settings that make it quickest: one queue, 500 taken ahead.
    pub(super) fn consume(&self, jobs: i64, concurrency: usize) -> Result<Option<f64>> {
        self.call(&["consume", &jobs.to_string(), &concurrency.to_string(), "tuned"])
    }
}
