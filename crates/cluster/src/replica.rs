//! A standby of a server: its copy, which then follows it.
//!
//! Always: a copy that was cut off is not taken for one; the password that it follows with lies in its own folder, closed to
//! others, because Postgres wants it there.

use std::process::Stdio;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::config::{ClusterConfig, Durability};
use crate::error::Error;
use crate::folder;
use crate::server::Cluster;

impl Cluster {
    /// Copies this server into the folder of `config`, unless one is there, and starts the copy as a hot standby that follows by
    /// streaming. A later start of the folder with [`Cluster::start`] goes on following.
    ///
    /// # Errors
    /// As [`Cluster::start`], and with what `pg_basebackup` says.
    pub async fn start_replica(&self, binaries: &Binaries, config: ClusterConfig) -> Result<Self, Error> {
        let source = Source {
            host: self.host().to_owned(),
            port: self.port(),
            role: self.config().admin_role.clone(),
            password: self.config().admin_password.clone(),
        };
        let (programs, copy) = (binaries.clone(), config.clone());
        let copied = tokio::task::spawn_blocking(move || source.copy(&programs, &copy)).await;
        copied.unwrap_or_else(|e| Err(Error::Start { folder: config.data_dir.clone(), why: e.to_string() }))?;
        Self::start(binaries, config).await
    }
}

/// Where a copy comes from. Has a password inside: no `Debug`.
struct Source {
    host: String,
    port: u16,
    role: String,
    password: String,
}

impl Source {
    fn copy(&self, binaries: &Binaries, config: &ClusterConfig) -> Result<(), Error> {
        if config.data_dir.join("PG_VERSION").is_file() {
            return Ok(());
        }
        let account = Account::for_folder(&config.data_dir)?;
        let dir = folder::place(&account, &config.data_dir)?;
        folder::clear(&dir)?;
        let fresh = dir.join("new");
        let mut command = account.command(&binaries.program("pg_basebackup"), "KILL");
        command.args(["--host", &self.host, "--port", &self.port.to_string(), "--username", &self.role, "--no-password"]);
        command.arg("--pgdata").arg(&fresh).args(["--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf"]);
        if config.durability == Durability::Scratch {
            command.arg("--no-sync");
        }
        let output = command.env("PGPASSWORD", &self.password).stdin(Stdio::null()).output();
        let output = output.map_err(Error::file("cannot run", binaries.program("pg_basebackup")))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Program { program: "pg_basebackup".into(), why });
        }
        folder::settle_in(&fresh, &dir)
    }
}
