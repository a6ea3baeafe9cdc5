//! What nobody may be told: passwords, keys and tokens of a running `up`, and where they might slip out.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::up::{Tenant, Up};

/// Secrets, each with a name that may be told.
#[derive(Debug, Default)]
pub struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// The host side's: the root key, the admin key, all keys of cells, the password of every login in the ready file.
    ///
    /// # Errors
    /// When a file of the data folder cannot be read.
    pub fn of(up: &Up) -> Result<Self> {
        let mut secrets = Self::default();
        secrets.add("the admin key", &up.ready.admin_key);
        secrets.add("the root key", std::fs::read_to_string(up.data().join("root.key"))?.trim());
        secrets.add_dsn("the catalog's owner", &up.ready.catalog_dsn);
        for cell in &up.ready.cells {
            secrets.add_dsn(&format!("the application at {}", cell.name), &cell.app_dsn);
            secrets.add_dsn(&format!("the owner at {}", cell.name), &cell.owner_dsn);
        }
        for entry in std::fs::read_dir(up.data().join("run"))?.flatten() {
            if entry.file_type()?.is_dir() {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Ok(json) = serde_json::from_slice(&std::fs::read(entry.path())?) {
                secrets.add_keys(&name, &json);
            }
        }
        ensure!(secrets.0.len() > 6, "few secrets were found: {:?}", secrets.0.iter().map(|s| &s.0).collect::<Vec<_>>());
        Ok(secrets)
    }

    /// One more.
    pub fn add(&mut self, name: &str, secret: &str) {
        if secret.len() >= 16 {
            self.0.push((name.to_owned(), secret.to_owned()));
        }
    }

    /// The password that a tenant's first user was given.
    pub fn add_tenant(&mut self, tenant: &Tenant) {
        self.add(&format!("the first password of {}", tenant.slug), &tenant.admin.password);
    }

    fn add_dsn(&mut self, name: &str, dsn: &str) {
        let login = dsn.split("://").nth(1).and_then(|rest| rest.split('@').next());
        if let Some((_, password)) = login.and_then(|login| login.split_once(':')) {
            self.add(name, password);
        }
    }

    /// Strings of hexadecimal digits, wherever they are, and the passwords of URLs.
    fn add_keys(&mut self, name: &str, json: &Value) {
        match json {
            Value::String(text) if text.contains("://") => self.add_dsn(name, text),
            Value::String(text) if text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) => self.add(name, text),
            Value::Object(map) => map.values().for_each(|value| self.add_keys(name, value)),
            Value::Array(list) => list.iter().for_each(|value| self.add_keys(name, value)),
            _ => {}
        }
    }

    /// The name of a secret that the text holds.
    #[must_use]
    pub fn told_by(&self, text: &str) -> Option<&str> {
        self.0.iter().find(|(_, secret)| text.contains(secret)).map(|(name, _)| name.as_str())
    }

    /// None stands in a log, in what `up` printed, or in the arguments of a process; and logs are for their owner alone.
    ///
    /// # Errors
    /// Which secret, and where.
    pub fn nowhere_told(&self, up: &Up) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mut seen = 0;
        for entry in std::fs::read_dir(up.data().join("logs"))?.flatten() {
            self.not_in(&entry.path())?;
            let mode = entry.metadata()?.permissions().mode();
            ensure!(mode & 0o077 == 0, "{} has mode {mode:o}", entry.path().display());
            seen += 1;
        }
        ensure!(seen > 0, "there are no logs");
        self.not_in(&up.printed())?;
        for process in &up.ready_now()?.processes {
            self.not_in(Path::new(&format!("/proc/{}/cmdline", process.pid)))?;
        }
        Ok(())
    }

    fn not_in(&self, path: &Path) -> Result<()> {
        let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
        let told = self.told_by(&text);
        ensure!(told.is_none(), "{} holds {}", path.display(), told.unwrap_or_default());
        Ok(())
    }
}
