//! AcmeDocs' exports, digests and webhooks in `insula up`, with the workers that it keeps; what operators see of them and can do; and a
//! worker that is killed in the middle.
//!
//! One `up` for all of it, step by step.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod digests;
mod exports;
mod kills;
mod operators;
mod receiver;
mod stage;
mod webhooks;

use anyhow::{Context, Result};
use insula_e2e::up::Up;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_async_plane_works_in_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::start(&folder.path().join("data"))?;
    exports::a_zip_of_the_tenants_own_documents(&up).await.context("exports")?;
    webhooks::a_change_is_told_and_signed(&up).await.context("webhooks")?;
    digests::a_night_of_the_tenants_own_zone(&up).await.context("digests")?;
    operators::jobs_are_seen_and_steered(&up).await.context("operators")?;
    kills::a_killed_worker_costs_no_job(&up).await.context("kills")?;
    up.stop()
}
