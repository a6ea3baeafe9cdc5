//! What a private server is to be like, and the configuration file that says so.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// Whether the server's data must outlive the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Commits are on disk; the server ends by a fast shutdown when its starter dies.
    Full,
    /// For tests: nothing is synced, and the server ends at once when its starter dies. A crash of the *machine* may lose
    /// everything; a crash of the server loses nothing.
    Scratch,
}

/// One private server.
#[derive(Clone)]
pub struct ClusterConfig {
    /// The data folder; made when missing.
    pub data_dir: PathBuf,
    /// A port to insist on; `None` keeps the last one while it is free, and takes a free one otherwise.
    pub port: Option<u16>,
    /// The superuser.
    pub admin_role: String,
    /// Its password.
    pub admin_password: String,
    /// Settings for `postgresql.conf`, after ours and stronger than ours.
    pub settings: Vec<(String, String)>,
    /// Where the server logs; `None` is `<data_dir>.log`.
    pub log: Option<PathBuf>,
    /// Whether the data must outlive the machine.
    pub durability: Durability,
}

impl ClusterConfig {
    /// A durable server with default settings.
    pub fn new(data_dir: impl Into<PathBuf>, admin_role: &str, admin_password: &str) -> Self {
        Self {
            data_dir: data_dir.into(),
            port: None,
            admin_role: admin_role.to_owned(),
            admin_password: admin_password.to_owned(),
            settings: Vec::new(),
            log: None,
            durability: Durability::Full,
        }
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.log.clone().unwrap_or_else(|| {
            let mut name = self.data_dir.clone().into_os_string();
            name.push(".log");
            name.into()
        })
    }

    /// The text of our configuration file.
    pub(crate) fn text(&self, port: u16) -> String {
        let mut text = String::from("# Written by insula at each start; put settings of your own into postgresql.auto.conf.\n");
        let scratch: &[(&str, &str)] = match self.durability {
            Durability::Full => &[],
            Durability::Scratch => &[("fsync", "off"), ("full_page_writes", "off"), ("max_wal_size", "256MB")],
        };
        let port = port.to_string();
        let own = OURS.iter().chain(scratch).copied().chain([("port", port.as_str())]);
        let all = own.chain(self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        for (name, value) in all {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        text
    }
}

impl std::fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterConfig")
            .field("data_dir", &self.data_dir)
            .field("port", &self.port)
            .field("admin_role", &self.admin_role)
            .field("admin_password", &"***")
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

const OURS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("password_encryption", "scram-sha-256"),
    ("max_connections", "200"),
    ("shared_buffers", "128MB"),
    ("dynamic_shared_memory_type", "posix"),
    // Live moves stream the log.
    ("wal_level", "logical"),
    ("max_wal_senders", "16"),
    ("max_replication_slots", "16"),
    // Short transactions: compiling a query costs more than it saves.
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("max_locks_per_transaction", "256"),
    // A crash with thousands of databases would otherwise sync file by file for minutes.
    ("recovery_init_sync_method", if cfg!(target_os = "linux") { "syncfs" } else { "fsync" }),
    // The log never holds a statement, a parameter or a row: they hold tenants' data and passwords.
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_min_error_statement", "panic"),
    ("log_error_verbosity", "terse"),
    ("log_parameter_max_length_on_error", "0"),
    ("log_checkpoints", "off"),
    ("log_line_prefix", "%m [%p] "),
    ("track_activity_query_size", "256"),
];

/// The file in the data folder that we write.
pub(crate) const FILE: &str = "insula.conf";

/// The port that the server had last time.
pub(crate) fn last_port(data_dir: &Path) -> Option<u16> {
    let text = std::fs::read_to_string(data_dir.join(FILE)).ok()?;
    let line = text.lines().rev().find(|l| l.starts_with("port = "))?;
    line.trim_start_matches("port = ").trim_matches('\'').parse().ok()
}

/// Writes our file and has `postgresql.conf` include it.
pub(crate) fn write(data_dir: &Path, text: &str) -> Result<(), Error> {
    let ours = data_dir.join(FILE);
    std::fs::write(&ours, text).map_err(Error::file("cannot write", &ours))?;
    let main = data_dir.join("postgresql.conf");
    let current = std::fs::read_to_string(&main).map_err(Error::file("cannot read", &main))?;
    let include = format!("include = '{FILE}'");
    if !current.lines().any(|l| l == include) {
        std::fs::write(&main, format!("{current}\n{include}\n")).map_err(Error::file("cannot write", &main))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_quoted_and_the_last_port_is_found() {
        let mut config = ClusterConfig::new("/nowhere", "boss", "secret");
        config.settings.push(("application_name".into(), "it's".into()));
        let text = config.text(5433);
        assert!(text.contains("application_name = 'it''s'\n"));
        assert!(!text.contains("secret") && !format!("{config:?}").contains("secret"));
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join(FILE), text).expect("written");
        assert_eq!(last_port(folder.path()), Some(5433));
    }
}
