//! `acmedocs import`: a folder of text, Markdown and HTML files, loaded through the public API as any client could.
//!
//! Always: a file becomes one document however often the folder is imported (its path is the document's `source`); what is
//! left out is counted and said.

mod client;
mod file;
mod html;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

use client::{Client, Sent};
use file::Reading;

/// What to load, where, as whom.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The tenant's slug: the host name is SLUG before the base domain.
    #[arg(long, value_name = "SLUG")]
    pub tenant: String,
    /// The folder, searched to its depths.
    pub folder: PathBuf,
    /// Where AcmeDocs listens.
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "ACMEDOCS_URL")]
    pub url: String,
    /// The domain behind the slug.
    #[arg(long, default_value = "localhost", env = "INSULA_BASE_DOMAIN")]
    pub base_domain: String,
    /// Whom to log in as.
    #[arg(long, env = "ACMEDOCS_EMAIL", requires = "password")]
    pub email: Option<String>,
    /// The password (better by the environment: arguments are seen by everybody on the machine).
    #[arg(long, env = "ACMEDOCS_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// A token instead of email and password.
    #[arg(long, env = "ACMEDOCS_TOKEN", hide_env_values = true, conflicts_with = "email")]
    pub token: Option<String>,
    /// Load this many files at most.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Requests at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
}

/// What became of the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// New documents.
    pub loaded: u64,
    /// Files that were documents already.
    pub known: u64,
    /// Files that are no text, too large, or empty.
    pub skipped: u64,
    /// Files that the server refused or that failed, with the first reason.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_failure: Option<String>,
}

/// Loads the folder and prints what became of it.
///
/// # Errors
/// When the folder is none, the log-in is refused, or files failed.
#[allow(clippy::disallowed_methods, reason = "a client of the application: there is no tenant to lose")]
pub async fn run(args: ImportArgs) -> Result<()> {
    let started = std::time::Instant::now();
    let files = Arc::new(args.folder.clone());
    let limit = args.limit.unwrap_or(usize::MAX);
    let paths = tokio::task::spawn_blocking(move || file::find(&files, limit)).await??;
    if paths.is_empty() {
        bail!("{} holds no .md, .markdown, .txt, .text, .rst, .html or .htm file", args.folder.display());
    }
    let client = Client::open(&args).await?;
    let bar = progress(paths.len() as u64);
    let outcome = load(&client, paths, usize::from(args.concurrency), &bar).await;
    bar.finish_and_clear();

    let Outcome { loaded, known, skipped, failed, first_failure } = outcome;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "{loaded} documents loaded, {known} there already, {skipped} skipped (no text, empty or too large), {failed} failed, in {seconds:.1} s"
    );
    match first_failure {
        Some(reason) => bail!("{failed} files failed; the first: {reason}"),
        None => Ok(()),
    }
}

#[allow(clippy::disallowed_methods, reason = "a client of the application: there is no tenant to lose")]
async fn load(client: &Client, files: Vec<file::Found>, concurrency: usize, bar: &ProgressBar) -> Outcome {
    let work = stream::iter(files).map(|found| async move {
        let name = found.source.clone();
        let reading = tokio::task::spawn_blocking(move || file::read(found)).await;
        let sent = match reading {
            Ok(Ok(Reading::Document(document))) => client.send(&document).await,
            Ok(Ok(Reading::Unfit)) => Ok(Sent::Skipped),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(error.into()),
        };
        (name, sent)
    });
    let mut work = std::pin::pin!(work.buffer_unordered(concurrency));
    let mut outcome = Outcome::default();
    while let Some((name, sent)) = work.next().await {
        bar.inc(1);
        match sent {
            Ok(Sent::Loaded) => outcome.loaded += 1,
            Ok(Sent::Known) => outcome.known += 1,
            Ok(Sent::Skipped) => outcome.skipped += 1,
            Err(error) => {
                outcome.failed += 1;
                outcome.first_failure.get_or_insert_with(|| format!("{name}: {error:#}"));
            }
        }
    }
    outcome
}

/// Drawn on a terminal only.
fn progress(files: u64) -> ProgressBar {
    let bar = ProgressBar::new(files);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files  {per_sec}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
