//! `insula up`: everything on this machine, supervised.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::Error;

/// Runs everything on this machine: private Postgres servers, the control plane, an application per cell.
#[derive(clap::Args, Debug)]
pub(crate) struct UpArgs {
    /// Folder that holds everything; a second `up` on it is refused.
    #[arg(long, env = "INSULA_DATA", default_value = ".insula", value_name = "DIR")]
    pub data: PathBuf,
    /// Throw away what the data folder holds, and start anew.
    #[arg(long)]
    pub fresh: bool,
    /// Where the gateway listens.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub gateway: SocketAddr,
    /// Where the control plane listens.
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR")]
    pub control: SocketAddr,
    /// Also write the ready file here (it is always at DIR/ready.json).
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Create no demo tenants.
    #[arg(long)]
    pub no_demo: bool,
}

/// Runs until Ctrl-C.
pub(crate) async fn run(args: UpArgs) -> Result<(), Error> {
    Err(Error::new(insula_core::Kind::Unavailable, format!("cannot start in {}", args.data.display()), String::new()))
}
