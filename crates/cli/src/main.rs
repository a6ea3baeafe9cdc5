//! The `insula` command.
//!
//! For: operators at a terminal, and programs that read `--json`. Everything but `up` and the long-running roles is a
//! client of the REST API. Always: results on stdout, everything else on stderr; the exit code is `Kind::exit_code`.

mod apikey;
mod audit;
mod cell;
mod certificate;
mod config;
mod control;
mod db;
mod domain;
mod error;
mod follow;
mod gateway;
mod identity;
mod job;
mod key;
mod load;
mod operation;
mod plan;
mod schedule;
mod screen;
mod status;
mod target;
mod tenant;
mod up;
mod usage;
mod value;
mod webhook;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::error::Error;

/// A request through the gateway is some thirty small allocations; glibc's took twice the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Host many tenants on one product without mixing their data, load or failures
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
    Gateway(gateway::GatewayArgs),
    #[command(name = "__launch", hide = true)]
    Launch(up::child::LaunchArgs),
    Tenant(tenant::TenantArgs),
    Plan(plan::PlanArgs),
    Cell(cell::CellArgs),
    Config(config::ConfigArgs),
    Operation(operation::OperationArgs),
    Job(job::JobArgs),
    Schedule(schedule::ScheduleArgs),
    Worker(worker::WorkerArgs),
    Audit(audit::AuditArgs),
    Lint(audit::LintArgs),
    Status(status::StatusArgs),
    Key(key::KeyArgs),
    Domain(domain::DomainArgs),
    Identity(identity::IdentityArgs),
    Apikey(apikey::ApikeyArgs),
    Certificate(certificate::CertificateArgs),
    Db(db::DbArgs),
    Load(load::LoadArgs),
    Usage(usage::UsageArgs),
    Webhook(webhook::WebhookArgs),
    /// Print the OpenAPI document of the control plane
    #[command(hide = true)]
    Openapi,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
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
        // `insula tenant list | head` is no fault.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn dispatch(command: Command) -> Result<(), Error> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Control(args) => control::run(args).await,
        Command::Gateway(args) => gateway::run(args).await,
        Command::Launch(_) => Ok(()),
        Command::Tenant(args) => tenant::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Cell(args) => cell::run(args).await,
        Command::Config(args) => config::run(args).await,
        Command::Operation(args) => operation::run(args).await,
        Command::Job(args) => job::run(args).await,
        Command::Schedule(args) => schedule::run(args).await,
        Command::Worker(args) => worker::run(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Lint(args) => audit::lint(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Key(args) => key::run(args).await,
        Command::Domain(args) => domain::run(args).await,
        Command::Identity(args) => identity::run(args).await,
        Command::Apikey(args) => apikey::run(args).await,
        Command::Certificate(args) => certificate::run(args).await,
        Command::Db(args) => db::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Usage(args) => usage::run(args).await,
        Command::Webhook(args) => webhook::run(args).await,
        Command::Openapi => {
            let document = insula_control::rest::document().to_pretty_json().map_err(std::io::Error::other)?;
            screen::Screen::new(false).text(&document)
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "insula", &mut text);
            screen::Screen::new(false).text(&String::from_utf8_lossy(&text))
        }
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("error: {error}");
    let help = error.help();
    if !help.is_empty() {
        eprintln!("  help: {help}");
    }
    ExitCode::from(error.kind().exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The help of every operator command, as one text.
    fn help(command: &mut clap::Command, path: &str, text: &mut String) {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        text.push_str(&format!("$ {path} --help\n{}\n", command.render_long_help()));
        for sub in command
            .get_subcommands_mut()
            .filter(|sub| !sub.is_hide_set() && !["help", "up", "control", "gateway"].contains(&sub.get_name()))
        {
            help(sub, &path, text);
        }
    }

    #[test]
    fn help_is_as_reviewed() {
        let mut text = String::new();
        let mut command = Cli::command();
        command.build();
        help(&mut command, "", &mut text);
        insta::assert_snapshot!("help", text);
    }

    /// An argument of a global option's name would be taken for that option, in silence.
    fn shadows(command: &clap::Command, globals: &[String], path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        let (own_globals, own): (Vec<_>, Vec<_>) = command.get_arguments().partition(|arg| arg.is_global_set());
        let name = |arg: &&clap::Arg| arg.get_id().to_string();
        found.extend(own.iter().map(name).filter(|id| globals.contains(id)).map(|id| format!("{path}: {id}")));
        let globals: Vec<String> = globals.iter().cloned().chain(own_globals.iter().map(name)).collect();
        command.get_subcommands().for_each(|sub| shadows(sub, &globals, &path, found));
    }

    #[test]
    fn no_argument_has_the_name_of_a_global_option() {
        let mut found = Vec::new();
        shadows(&Cli::command(), &[], "", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn completions_name_the_commands() {
        let mut text = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "insula", &mut text);
        assert!(String::from_utf8_lossy(&text).contains("tenant"));
    }
}
