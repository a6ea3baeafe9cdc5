//! `insula control`: the control plane, as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Runs the control plane.
#[derive(clap::Args, Debug)]
pub(crate) struct ControlArgs {
    /// Its settings, JSON; the file holds secrets: mode 0600.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// The file that `--config` names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlFile {
    /// Where the catalog is: a superuser's or the owner's URL. A secret.
    pub(crate) catalog_url: String,
    /// File of the root key.
    pub(crate) root_key: PathBuf,
    /// Where the API is served.
    pub(crate) listen: SocketAddr,
    /// Where health and metrics are served.
    pub(crate) admin_listen: SocketAddr,
    /// File of the superusers' URLs of registered cells.
    #[serde(default)]
    pub(crate) cell_logins: Option<PathBuf>,
    /// Whether an `insula up` beside it starts private cells when asked.
    #[serde(default)]
    pub(crate) embedded_cells: bool,
}

/// Serves until it is asked to end.
pub(crate) async fn run(args: ControlArgs) -> Result<(), Error> {
    Err(Error::new(insula_core::Kind::Unavailable, format!("{}", args.config.display()), ""))
}
