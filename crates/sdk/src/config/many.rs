//! Settings of a process for many customers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use insula_core::{CellName, KeyRing};
use insula_http::resolve::{ResolveOptions, SourceSpec};

use super::text::{Vars, wrong};
use super::{ConfigError, alone};

const CATALOG_URL: &str = "INSULA_CATALOG_URL";
pub(super) const KEYRING: &str = "INSULA_KEYRING";
const BASE_DOMAIN: &str = "INSULA_BASE_DOMAIN";
const CELL: &str = "INSULA_CELL";
const CONTROL_URL: &str = "INSULA_CONTROL_URL";
const JWKS_URL: &str = "INSULA_JWKS_URL";
const JWKS_FILE: &str = "INSULA_JWKS_FILE";
const SOURCES: &str = "INSULA_SOURCES";
const HOST_SIDE: &str = "INSULA_HOST_SIDE";
const SHARED_HOSTS: &str = "INSULA_SHARED_HOSTS";
const FALLBACK: &str = "INSULA_FALLBACK_TENANT";
const CELL_CA: &str = insula_catalog::tls::AUTHORITIES;
const READ_STALENESS: &str = "INSULA_READ_STALENESS_MS";

/// As [`insula_data::DataConfig`] has it.
const DEFAULT_STALENESS: Duration = Duration::from_secs(1);

pub(super) const NAMES: &[&str] = &[
    KEYRING,
    CELL_CA,
    READ_STALENESS,
    CATALOG_URL,
    BASE_DOMAIN,
    CELL,
    CONTROL_URL,
    JWKS_URL,
    JWKS_FILE,
    SOURCES,
    HOST_SIDE,
    SHARED_HOSTS,
    FALLBACK,
];
/// Those that say nothing to a process for one.
pub(super) const ONLY_MANY: &[&str] = &[
    READ_STALENESS,
    CELL_CA,
    CATALOG_URL,
    BASE_DOMAIN,
    CELL,
    CONTROL_URL,
    JWKS_URL,
    JWKS_FILE,
    SOURCES,
    HOST_SIDE,
    SHARED_HOSTS,
    FALLBACK,
];

/// Settings of a process for many customers.
#[derive(Clone)]
pub struct Many {
    /// `INSULA_CATALOG_URL`: where the catalog is read, as `postgres://insula_reader:…@host/insula_catalog`. A secret.
    pub catalog_url: String,
    /// `INSULA_KEYRING`: the keys of the cells that this process serves, read from the file named there.
    pub keyring: KeyRing,
    /// The file itself: it is read again when it changes, because a process may be given more cells while it runs.
    pub keyring_path: Option<PathBuf>,
    /// `INSULA_CELL_CA`: certificate authorities that cells' database servers may have beside those of the web, for cells whose tls is
    /// `verify-full`: a PEM file.
    pub cell_authorities: Option<PathBuf>,
    /// `INSULA_READ_STALENESS_MS`: what a replica may lack at most while reads go there: what was committed within so many milliseconds.
    /// Default 1000; 0: no read goes to a replica.
    pub read_staleness: Duration,
    /// `INSULA_BASE_DOMAIN`: tenants answer at `SLUG.` before it. Default `localhost`.
    pub base_domain: String,
    /// `INSULA_CELL`: the cell that this process belongs to, when it belongs to one.
    pub cell: Option<CellName>,
    /// `INSULA_CONTROL_URL`: the control plane, when this process may know it.
    pub control_url: Option<String>,
    /// How tenants are found: `INSULA_SOURCES`, `INSULA_HOST_SIDE`, `INSULA_SHARED_HOSTS` (lists with commas) and
    /// `INSULA_FALLBACK_TENANT`. Not asked behind a gateway.
    pub resolve: ResolveOptions,
    /// `INSULA_JWKS_URL`, `INSULA_JWKS_FILE`: the keys of the gateway before this process. With either, only requests that carry a tenant
    /// context that the gateway signed for this cell are served, and hosts say nothing.
    pub jwks: Jwks,
}

/// Where a gateway's public keys are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jwks {
    /// The control plane's `/.well-known/jwks.json`.
    pub url: Option<String>,
    /// A file with the same; beside a URL, what was last fetched is kept there.
    pub file: Option<PathBuf>,
}

impl Jwks {
    /// Whether there is a gateway to believe.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.url.is_some() || self.file.is_some()
    }
}

impl Many {
    /// With defaults for the rest.
    #[must_use]
    pub fn new(catalog_url: String, keyring: KeyRing) -> Self {
        Self {
            catalog_url,
            keyring,
            keyring_path: None,
            cell_authorities: None,
            read_staleness: DEFAULT_STALENESS,
            base_domain: "localhost".to_owned(),
            cell: None,
            control_url: None,
            resolve: ResolveOptions::default(),
            jwks: Jwks::default(),
        }
    }

    pub(super) fn read(vars: Vars<'_>) -> Result<Self, ConfigError> {
        vars.refuse(alone::ONLY_ALONE, "on")?;
        let what = "the catalog's address, postgres://insula_reader:PASSWORD@HOST:PORT/insula_catalog";
        let catalog_url = vars.need(CATALOG_URL, what)?.to_owned();
        if !catalog_url.starts_with("postgres://") && !catalog_url.starts_with("postgresql://") {
            return Err(wrong(CATALOG_URL, format!("give {what}")));
        }
        let path = PathBuf::from(vars.need(KEYRING, "the path of a key file for the cells that this process serves")?);
        let jwks = Jwks { url: vars.get(JWKS_URL).map(str::to_owned), file: vars.get(JWKS_FILE).map(PathBuf::from) };
        let cell = vars.get(CELL).map(|name| name.parse().map_err(|e| wrong(CELL, e))).transpose()?;
        if jwks.is_set() && cell.is_none() {
            return Err(ConfigError::Missing {
                name: CELL,
                what: "contexts are signed for a cell's application: say which cell's this is",
            });
        }
        let cell_authorities = vars.get(CELL_CA).map(PathBuf::from);
        if let Some(file) = &cell_authorities {
            insula_catalog::tls::check_authorities(file).map_err(|why| wrong(CELL_CA, why))?;
        }
        let read_staleness = match vars.get(READ_STALENESS) {
            None => DEFAULT_STALENESS,
            Some(text) => {
                let ms = text.parse().ok().filter(|ms| *ms <= 60_000);
                let ms =
                    ms.ok_or_else(|| wrong(READ_STALENESS, format!("{text:?} is not a number of milliseconds up to 60000")))?;
                Duration::from_millis(ms)
            }
        };
        Ok(Self {
            catalog_url,
            read_staleness,
            keyring: read_keyring(&path)?,
            keyring_path: Some(path),
            cell_authorities,
            base_domain: vars.get(BASE_DOMAIN).unwrap_or("localhost").trim_matches('.').to_ascii_lowercase(),
            cell,
            control_url: vars.get(CONTROL_URL).map(str::to_owned),
            resolve: resolve(vars)?,
            jwks,
        })
    }
}

fn resolve(vars: Vars<'_>) -> Result<ResolveOptions, ConfigError> {
    let texts = |name| vars.list(name).map(str::to_owned).collect();
    let mut options =
        ResolveOptions { host_side: texts(HOST_SIDE), shared_hosts: texts(SHARED_HOSTS), ..ResolveOptions::default() };
    if vars.get(SOURCES).is_some() {
        let sources = vars.list(SOURCES).map(str::parse::<SourceSpec>).collect::<Result<_, _>>();
        options.sources = sources.map_err(|e| wrong(SOURCES, e))?;
    }
    options.fallback = vars.get(FALLBACK).map(|slug| slug.parse().map_err(|e| wrong(FALLBACK, e))).transpose()?;
    Ok(options)
}

pub(crate) fn read_keyring(path: &Path) -> Result<KeyRing, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| wrong(KEYRING, format!("{} cannot be read: {e}", path.display())))?;
    KeyRing::from_json(&text).map_err(|e| wrong(KEYRING, format!("{}: {e}", path.display())))
}

impl fmt::Debug for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Many")
            .field("catalog_url", &"***")
            .field("keyring", &self.keyring)
            .field("base_domain", &self.base_domain)
            .field("cell", &self.cell)
            .field("control_url", &self.control_url)
            .field("jwks", &self.jwks)
            .finish_non_exhaustive()
    }
}
