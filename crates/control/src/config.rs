//! What the control plane is told at its start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use insula_core::{CellName, RootKey};
use serde::Deserialize;

use crate::error::Error;
use crate::operation::fault::{Faults, NoFaults};

/// Configuration of one control plane process. Secrets print as `***`.
#[derive(Clone)]
pub struct Config {
    /// Where the catalog is: a superuser, or the owner of the database. Holds a password.
    pub catalog_url: String,
    /// The host side's key.
    pub root_key: RootKey,
    /// Names this process in leases; unique among the processes on one catalog.
    pub name: String,
    /// Cells whose servers somebody has started before us: put into the catalog (or brought up to date there) at start.
    pub cells: Vec<CellSpec>,
    /// Admin logins of registered cells: JSON `{"cells": {"name": "postgres://admin:pw@host:port/db"}}`, mode 0600.
    pub cell_secrets: Option<PathBuf>,
    /// Certificate authorities that cells' servers may have beside those of the web: a PEM file, read at each new connection.
    pub cell_authorities: Option<PathBuf>,
    /// Where a tenant of isolation `cell` gets its cell: the registered free ones first, then, when this is on, a new
    /// embedded one from `insula up`.
    pub embedded_cells: bool,
    /// Pre-made databases in each cell that is not dedicated.
    pub warm_databases: u32,
    /// Operations at work at once.
    pub workers: usize,
    /// How long an operation stays ours without a heartbeat.
    pub lease: Duration,
    /// How long a step is tried again when what it needs is away.
    pub patience: Duration,
    /// How long a new cell may take to come up.
    pub cell_patience: Duration,
    /// First wait before a step is tried again; doubles up to thirty seconds, with jitter.
    pub backoff: Duration,
    /// Between two rounds of the reconcilers (a signal wakes them too).
    pub reconcile_every: Duration,
    /// Revisions that the change feed keeps. A data plane that was away for longer than so many changes loads the catalog anew:
    /// it misses nothing, it only reads more.
    pub keep_revisions: i64,
    /// Certificate authorities that receivers of webhooks may have beside those of the web: a PEM file.
    pub webhook_authorities: Option<PathBuf>,
    /// Whether webhooks may lead to this machine and to private networks. The link's own addresses (169.254.0.0/16, fe80::/10)
    /// they never reach.
    pub webhook_private: bool,
    /// Tenants answer at `SLUG.` before it: no tenant's own host name can be it, or below it.
    pub base_domain: String,
    /// The name server that is asked for proofs of host names; those of the system unless given.
    pub dns: Option<SocketAddr>,
    /// What goes wrong on purpose: nothing, outside of tests.
    pub faults: Arc<dyn Faults>,
}

/// A cell that runs already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellSpec {
    /// Its name.
    pub name: CellName,
    /// Where it stands.
    pub region: String,
    /// What placement may ask for.
    pub labels: Vec<String>,
    /// Where its server listens.
    pub host: String,
    /// Where its server listens.
    pub port: u16,
    /// Base URL of its application stack.
    pub app_url: Option<String>,
    /// Most tenants.
    pub capacity: i32,
}

impl Config {
    /// Defaults that work.
    #[must_use]
    pub fn new(catalog_url: impl Into<String>, root_key: RootKey) -> Self {
        Self {
            catalog_url: catalog_url.into(),
            root_key,
            name: format!("control-{}", uuid::Uuid::new_v4().simple()),
            cells: Vec::new(),
            cell_secrets: None,
            cell_authorities: None,
            embedded_cells: true,
            warm_databases: 4,
            workers: 16,
            lease: Duration::from_secs(15),
            patience: Duration::from_secs(600),
            cell_patience: Duration::from_secs(120),
            backoff: Duration::from_millis(100),
            reconcile_every: Duration::from_secs(5),
            keep_revisions: 100_000,
            webhook_authorities: None,
            webhook_private: false,
            base_domain: "localhost".to_owned(),
            dns: None,
            faults: Arc::new(NoFaults),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config({}, catalog ***, root key ***, cells {:?})", self.name, self.cells)
    }
}

/// Admin logins of registered cells.
#[derive(Clone, Default)]
pub(crate) struct CellSecrets {
    urls: BTreeMap<CellName, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CellSecretsFile {
    cells: BTreeMap<CellName, String>,
}

impl CellSecrets {
    /// Reads the file anew, so that a cell registered today needs no restart.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Io { what: format!("reading the cells' secrets at {}", path.display()), source })?;
        refuse_readable_by_others(path)?;
        // The parser's message could quote a password: it stays out.
        let file: CellSecretsFile = serde_json::from_str(&text).map_err(|e| {
            Error::Corrupt(format!(
                "{}: line {}: expected {{\"cells\": {{\"name\": \"postgres://…\"}}}}",
                path.display(),
                e.line()
            ))
        })?;
        Ok(Self { urls: file.cells })
    }

    pub(crate) fn url(&self, cell: &CellName) -> Option<&str> {
        self.urls.get(cell).map(String::as_str)
    }
}

fn refuse_readable_by_others(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = std::fs::metadata(path).map_err(|source| Error::Io { what: format!("looking at {}", path.display()), source })?;
    if meta.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::Corrupt(format!("{} holds passwords and others may read it: chmod 600 it", path.display())))
}
