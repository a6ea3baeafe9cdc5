//! `insula control`: the control plane, as a process of its own.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use insula_core::keys::Secret;
use insula_core::{Kind, RootKey};
use insula_telemetry::drain::Drained;
use insula_telemetry::{Readiness, Shutdown};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

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
    /// PEM file of the certificate authorities that cells' database servers may have beside those of the web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cell_authorities: Option<PathBuf>,
    /// Whether an `insula up` beside it starts private cells when asked.
    #[serde(default)]
    pub(crate) embedded_cells: bool,
    /// Revisions that the change feed keeps (100,000 when not set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keep_revisions: Option<u32>,
    /// Tenants answer at `SLUG.` before it (`localhost` when not set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base_domain: Option<String>,
    /// The name server that is asked for proofs of host names, as `9.9.9.9:53`; those of the system when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dns: Option<SocketAddr>,
    /// PEM file of the certificate authorities that receivers of webhooks may have beside those of the web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) webhook_authorities: Option<PathBuf>,
    /// Whether webhooks may lead to this machine and to private networks.
    #[serde(default)]
    pub(crate) webhook_private: bool,
}

/// Requests in flight may take this long to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until it is asked to end.
pub(crate) async fn run(args: ControlArgs) -> Result<(), Error> {
    let file = read(&args.config)?;
    insula_telemetry::logs::init("control").map_err(|e| fault(Kind::Invalid, &e))?;
    let readiness = Readiness::new();
    let gate = readiness.gate("api");
    let _admin =
        insula_telemetry::admin::serve("control", file.admin_listen, readiness).map_err(|e| fault(Kind::Unavailable, &e))?;
    let listener = TcpListener::bind(file.listen).await.map_err(|e| {
        let help = "stop what listens there, or choose another address";
        Error::new(Kind::Unavailable, format!("cannot listen on {}: {e}", file.listen), help)
    })?;
    let mut config = insula_control::Config::new(&file.catalog_url, read_root_key(&file.root_key)?);
    config.cell_secrets = file.cell_logins;
    config.cell_authorities = file.cell_authorities;
    config.embedded_cells = file.embedded_cells;
    config.base_domain = file.base_domain.unwrap_or(config.base_domain);
    config.dns = file.dns;
    config.webhook_authorities = file.webhook_authorities;
    config.webhook_private = file.webhook_private;
    config.keep_revisions = file.keep_revisions.map_or(config.keep_revisions, i64::from);
    let shutdown = Shutdown::on_signals(DRAIN).map_err(|e| fault(Kind::Internal, &e))?;
    // Whoever connects from now on is answered as soon as the catalog is open.
    gate.open();
    match shutdown.bound(insula_control::run(config, listener, shutdown.requested())).await {
        Drained::Finished(outcome) => outcome.map_err(|e| Error::new(e.kind(), e.to_string(), "")),
        Drained::CutOff => Ok(()),
    }
}

fn fault(kind: Kind, error: &dyn std::error::Error) -> Error {
    Error::new(kind, error.to_string(), "")
}

fn read(path: &Path) -> Result<ControlFile, Error> {
    let bad = |what: String, help: &str| Error::new(Kind::Invalid, format!("{}: {what}", path.display()), help);
    let meta = std::fs::metadata(path).map_err(|e| bad(e.to_string(), ""))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(bad("others may read it, and it holds secrets".into(), "chmod 600 it"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string(), ""))?;
    // The parser's own message could quote a secret.
    serde_json::from_str(&text).map_err(|e| bad(format!("line {}, column {} cannot be read", e.line(), e.column()), ""))
}

pub(crate) fn read_root_key(path: &Path) -> Result<RootKey, Error> {
    let bad = |what: String| Error::new(Kind::Invalid, format!("{}: {what}", path.display()), "");
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    Secret::from_hex(text.trim()).map(RootKey::new).map_err(|e| bad(e.to_string()))
}
