//! `acmedocs`: serve, print the bundle, import a folder.

use acmedocs::import::ImportArgs;
use clap::{Parser, Subcommand};

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
    /// Print the tables' migrations and the seed as JSON, for the control plane.
    Bundle,
    /// Load a folder of text, Markdown and HTML files through the public API.
    Import(ImportArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve => {
                let insula = insula::Insula::connect(insula::Config::from_env()?).await?;
                Ok(insula::serve(acmedocs::router().layer(insula.layer()), &insula).await?)
            }
            Command::Bundle => Ok(serde_json::to_writer_pretty(std::io::stdout().lock(), &acmedocs::bundle::bundle())?),
            Command::Import(args) => acmedocs::import::run(args).await,
        }
    })
}
