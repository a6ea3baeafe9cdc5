//! `insula gateway`: the HTTP edge, as a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use insula_core::Kind;
use insula_gateway::{Config, Listeners};
use insula_telemetry::Shutdown;

use crate::error::Error;

/// Runs the gateway: from a client's request to the application of its tenant's cell.
#[derive(clap::Args, Debug)]
pub(crate) struct GatewayArgs {
    /// Its settings, TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Serves until it is asked to end.
pub(crate) async fn run(args: GatewayArgs) -> Result<(), Error> {
    let config = Config::read(&args.config).map_err(|e| fault(&e))?;
    insula_telemetry::logs::init("gateway").map_err(|e| Error::new(Kind::Invalid, e.to_string(), ""))?;
    let listeners = Listeners::bind(&config.listen).map_err(|e| fault(&e))?;
    let drain = Duration::from_millis(config.timeouts.drain_ms);
    let shutdown = Shutdown::on_signals(drain).map_err(|e| Error::new(Kind::Internal, e.to_string(), ""))?;
    insula_gateway::run(config, listeners, shutdown).await.map_err(|e| fault(&e))
}

fn fault(error: &insula_gateway::Error) -> Error {
    let help = match error {
        insula_gateway::Error::Listen { .. } => "stop what listens there, or choose another address",
        _ => "",
    };
    Error::new(error.kind(), error.to_string(), help)
}
