//! `acmedocs`: serve, work, print the bundle, import a folder.

use std::process::ExitCode;

use std::io::Write as _;

use acmedocs::import::ImportArgs;
use clap::{Parser, Subcommand};
use insula::jobs::WorkerConfig;

#[derive(Parser)]
#[command(name = "acmedocs", version, about = "A document application for many customers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve requests (settings: the INSULA_ variables).
    Serve,
    /// Run jobs, until asked to stop: exports, digests and what else is done later (settings: the INSULA_ variables).
    Worker,
    /// Prepare the database of one customer on its own server, or bring it up to date (INSULA_TENANCY=off; the owner in
    /// INSULA_DATABASE_URL). Prints the first user's password, this once.
    Install,
    /// Print the tables' migrations and the seed as JSON, for the control plane.
    Bundle,
    /// Load a folder of text, Markdown and HTML files through the public API.
    Import(ImportArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its causes with it, and no backtrace, also where RUST_BACKTRACE is set: it is for who typed the command.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        match command {
            Command::Serve => {
                let config = config()?;
                let alone = matches!(config.tenancy, insula::config::Tenancy::Off(_));
                let insula = insula::Insula::connect(config).await?;
                // For one customer one process is enough.
                let worker = if alone { Some(insula.worker(acmedocs::jobs()?, WorkerConfig::default())?) } else { None };
                let served = insula::serve(acmedocs::router().layer(insula.layer()), &insula).await;
                if let Some(worker) = worker {
                    worker.stop().await;
                }
                Ok(served?)
            }
            Command::Worker => {
                let insula = insula::Insula::connect(config()?).await?;
                Ok(insula::work(acmedocs::jobs()?, &insula, WorkerConfig::default()).await?)
            }
            Command::Install => install().await,
            Command::Bundle => Ok(serde_json::to_writer_pretty(std::io::stdout().lock(), &acmedocs::bundle::bundle())?),
            Command::Import(args) => acmedocs::import::run(args).await,
        }
    })
}

/// The settings, and what this application brings along when it runs for one customer.
fn config() -> Result<insula::Config, insula::ConfigError> {
    Ok(insula::Config::from_env()?.bringing(acmedocs::bundle::bundle(), acmedocs::features::all()))
}

async fn install() -> anyhow::Result<()> {
    let installed = insula::alone::install(&config()?).await?;
    let mut out = std::io::stdout().lock();
    match installed.admin {
        Some(admin) => writeln!(out, "ready: log in as {} with the password {}", admin.email, admin.password)?,
        None => writeln!(out, "ready: {} migrations applied, no user made", installed.migrations)?,
    }
    Ok(())
}
