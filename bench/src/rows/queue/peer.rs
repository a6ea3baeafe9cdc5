//! graphile-worker and pg-boss, each in a node process, on a database of its own in the same server.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sqlx::AssertSqlSafe;

use super::ground::Ground;

/// A peer, when it is installed.
pub(super) struct Peer {
    /// As it is called.
    pub(super) name: &'static str,
    script: &'static str,
    /// How many to take ahead, or whatever else makes it quickest.
    tuned: &'static str,
    folder: Option<PathBuf>,
    url: String,
}

impl Peer {
    /// One queue, 500 taken ahead.
    pub(super) async fn graphile(ground: &Ground) -> Result<Self> {
        Self::new(ground, "graphile-worker", "graphile.mjs", "tuned", "graphile").await
    }

    /// One queue, batches of so many for each worker, which takes the next one at once.
    pub(super) async fn boss(ground: &Ground) -> Result<Self> {
        Self::new(ground, "pg-boss", "pgboss.mjs", "1000", "pgboss").await
    }

    async fn new(
        ground: &Ground,
        name: &'static str,
        script: &'static str,
        tuned: &'static str,
        database: &'static str,
    ) -> Result<Self> {
        let folder = std::env::var_os("INSULA_BENCH_QUEUE").map(PathBuf::from);
        let mut admin = ground.server.admin("postgres").await;
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&mut admin).await?;
        Ok(Self { name, script, tuned, folder, url: ground.server.admin_url(database) })
    }

    /// Runs a command of the script; jobs per second, where it says so.
    fn call(&self, words: &[&str]) -> Result<Option<f64>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let output =
            Command::new("node").arg(self.script).args(words).current_dir(folder).env("DATABASE_URL", &self.url).output()?;
        ensure!(output.status.success(), "{} failed: {}", self.name, String::from_utf8_lossy(&output.stderr));
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

    /// Those that were inserted last, by the settings that make it quickest.
    pub(super) fn consume(&self, jobs: i64, concurrency: usize) -> Result<Option<f64>> {
        self.call(&["consume", &jobs.to_string(), &concurrency.to_string(), self.tuned])
    }
}
