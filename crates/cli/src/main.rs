//! The `insula` command.
//!
//! For: operators at a terminal, and programs that read `--json`. Everything but `up` and the long-running roles is a
//! client of the REST API. Always: results on stdout, everything else on stderr; the exit code is `Kind::exit_code`.

mod control;
mod error;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

/// Host many tenants on one product without mixing their data, load or failures.
#[derive(Parser, Debug)]
#[command(name = "insula", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(up::UpArgs),
    Control(control::ControlArgs),
    #[command(name = "__launch", hide = true)]
    Launch(up::child::LaunchArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before there are threads: what it asks of the kernel belongs to the thread that asks.
    if let Command::Launch(args) = &cli.command {
        return up::child::launch(args);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&Error::new(insula_core::Kind::Internal, format!("cannot start a runtime: {e}"), "")),
    };
    let outcome = runtime.block_on(dispatch(cli.command));
    // A blocking call that still waits for something must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn dispatch(command: Command) -> Result<(), Error> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Control(args) => control::run(args).await,
        Command::Launch(_) => Ok(()),
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("error: {error}");
    if !error.help().is_empty() {
        eprintln!("  help: {}", error.help());
    }
    ExitCode::from(error.kind().exit_code())
}
