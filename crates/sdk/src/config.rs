//! What a process of an application is told from outside.
//!
//! Always: a wrong setting stops the start with a sentence that says what to do; no secret is in any of those sentences.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use insula_core::{CellName, KeyRing};

/// Settings of one application process.
#[derive(Clone)]
pub struct Config {
    /// `INSULA_CATALOG_URL`: where the catalog is read, as `postgres://insula_reader:…@host/insula_catalog`. A secret.
    pub catalog_url: String,
    /// `INSULA_KEYRING`: the keys of the cells that this process serves, read from the file named there.
    pub keyring: KeyRing,
    /// The file itself: it is read again when it changes, because a process may be given more cells while it runs.
    pub keyring_path: Option<PathBuf>,
    /// `INSULA_LISTEN`: where requests come in. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// `INSULA_ADMIN_LISTEN`: health and metrics, on a thread of their own. Default `127.0.0.1:0`.
    pub admin_listen: SocketAddr,
    /// `INSULA_BASE_DOMAIN`: tenants answer at `SLUG.` before it. Default `localhost`.
    pub base_domain: String,
    /// `INSULA_CELL`: the cell that this process belongs to, when it belongs to one.
    pub cell: Option<CellName>,
    /// `INSULA_CONTROL_URL`: the control plane, when this process may know it.
    pub control_url: Option<String>,
}

/// Why the settings do not do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting without which nothing works.
    #[error("{name} is not set: {what}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it is for, with an example.
        what: &'static str,
    },
    /// A setting that cannot be read.
    #[error("{name} is wrong: {reason}")]
    Wrong {
        /// The variable.
        name: &'static str,
        /// What would be right.
        reason: String,
    },
    /// A name nobody reads: a typing error would otherwise pass for a setting.
    #[error("{name} is not a setting{}", nearest.map(|near| format!(": did you mean {near}?")).unwrap_or_default())]
    Unknown {
        /// The variable.
        name: String,
        /// The known name closest to it.
        nearest: Option<&'static str>,
    },
}

const CATALOG_URL: &str = "INSULA_CATALOG_URL";
const KEYRING: &str = "INSULA_KEYRING";
const LISTEN: &str = "INSULA_LISTEN";
const ADMIN_LISTEN: &str = "INSULA_ADMIN_LISTEN";
const BASE_DOMAIN: &str = "INSULA_BASE_DOMAIN";
const CELL: &str = "INSULA_CELL";
const CONTROL_URL: &str = "INSULA_CONTROL_URL";
const OURS: &[&str] = &[CATALOG_URL, KEYRING, LISTEN, ADMIN_LISTEN, BASE_DOMAIN, CELL, CONTROL_URL];
/// Settings of other programs of the house, which may stand in the same environment.
const OTHERS: &[&str] =
    &["INSULA_DATA", "INSULA_URL", "INSULA_KEY", "INSULA_LOG", "INSULA_LOG_FORMAT", "INSULA_PARENT_PID", "INSULA_PG_BIN"];

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`ConfigError`] that names the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Reads these variables; those that do not start with `INSULA_` are somebody else's.
    ///
    /// # Errors
    /// [`ConfigError`] that names the variable.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let vars: BTreeMap<_, _> =
            vars.into_iter().filter(|(name, value)| name.starts_with("INSULA_") && !value.is_empty()).collect();
        if let Some(name) = vars.keys().find(|name| !OURS.contains(&name.as_str()) && !OTHERS.contains(&name.as_str())) {
            return Err(ConfigError::Unknown { nearest: nearest(name), name: name.clone() });
        }
        let get = |name: &str| vars.get(name).map(String::as_str);

        let what = "the catalog's address, postgres://insula_reader:PASSWORD@HOST:PORT/insula_catalog";
        let catalog_url = get(CATALOG_URL).ok_or(ConfigError::Missing { name: CATALOG_URL, what })?.to_owned();
        if !catalog_url.starts_with("postgres://") && !catalog_url.starts_with("postgresql://") {
            return Err(ConfigError::Wrong { name: CATALOG_URL, reason: format!("give {what}") });
        }
        let what = "the path of a key file for the cells that this process serves";
        let path = PathBuf::from(get(KEYRING).ok_or(ConfigError::Missing { name: KEYRING, what })?);
        Ok(Self {
            catalog_url,
            keyring: read_keyring(&path)?,
            keyring_path: Some(path),
            listen: address(LISTEN, get(LISTEN).unwrap_or("127.0.0.1:8080"))?,
            admin_listen: address(ADMIN_LISTEN, get(ADMIN_LISTEN).unwrap_or("127.0.0.1:0"))?,
            base_domain: get(BASE_DOMAIN).unwrap_or("localhost").trim_matches('.').to_ascii_lowercase(),
            cell: get(CELL).map(|name| name.parse().map_err(|e| wrong(CELL, e))).transpose()?,
            control_url: get(CONTROL_URL).map(str::to_owned),
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("catalog_url", &"***")
            .field("keyring", &self.keyring)
            .field("listen", &self.listen)
            .field("admin_listen", &self.admin_listen)
            .field("base_domain", &self.base_domain)
            .field("cell", &self.cell)
            .field("control_url", &self.control_url)
            .finish()
    }
}

pub(crate) fn read_keyring(path: &std::path::Path) -> Result<KeyRing, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| wrong(KEYRING, format!("{} cannot be read: {e}", path.display())))?;
    KeyRing::from_json(&text).map_err(|e| wrong(KEYRING, format!("{}: {e}", path.display())))
}

fn address(name: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| wrong(name, format!("{text:?} is not an address and port like 127.0.0.1:8080")))
}

fn wrong(name: &'static str, reason: impl fmt::Display) -> ConfigError {
    ConfigError::Wrong { name, reason: reason.to_string() }
}

/// The known name at the smallest edit distance, if that is small enough to be a typing error.
fn nearest(name: &str) -> Option<&'static str> {
    OURS.iter().map(|known| (distance(name, known), *known)).min().filter(|(d, _)| *d <= 3).map(|(_, known)| known)
}

fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn faults_name_the_setting_and_the_remedy() {
        let says = |vars: &[(&str, &str)]| read(vars).expect_err("refused").to_string();
        assert!(says(&[]).starts_with("INSULA_CATALOG_URL is not set"));
        assert!(says(&[("INSULA_CATALOG_URL", "postgres://u:hunter2@h/c")]).starts_with("INSULA_KEYRING is not set"));
        assert_eq!(says(&[("INSULA_LISTNE", "x")]), "INSULA_LISTNE is not a setting: did you mean INSULA_LISTEN?");
        assert_eq!(says(&[("INSULA_FLUX_CAPACITOR", "x")]), "INSULA_FLUX_CAPACITOR is not a setting");
        let text = says(&[("INSULA_CATALOG_URL", "mysql://u:hunter2@h/c")]);
        assert!(text.contains("INSULA_CATALOG_URL is wrong") && !text.contains("hunter2"), "{text}");
        let text = says(&[("INSULA_CATALOG_URL", "postgres://u:p@h/c"), ("INSULA_KEYRING", "/nowhere/keys")]);
        assert!(text.contains("/nowhere/keys cannot be read"), "{text}");
    }

    #[test]
    fn defaults_suit_one_machine() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!(r#"{{"cells":{{"main":"{}"}}}}"#, "ab".repeat(32))).expect("written");
        let vars = [
            ("INSULA_CATALOG_URL", "postgres://u:hunter2@h/c"),
            ("INSULA_KEYRING", file.path().to_str().expect("a path")),
            ("PATH", "/bin"),
        ];
        let config = read(&vars).expect("reads");
        assert_eq!((config.listen.to_string().as_str(), config.base_domain.as_str()), ("127.0.0.1:8080", "localhost"));
        assert!(!format!("{config:?}").contains("hunter2") && !format!("{config:?}").contains("abab"));
    }
}
