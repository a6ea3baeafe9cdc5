//! Which control plane a command talks to.

use std::path::{Path, PathBuf};

use insula_api::Client;
use insula_core::Kind;
use serde::Deserialize;

use crate::error::Error;

/// Options that every operator command has.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Target {
    /// Data folder of a running `insula up`
    #[arg(long, env = "INSULA_DATA", hide_env_values = true, default_value = ".insula", value_name = "DIR", global = true)]
    data: PathBuf,
    /// Address of a control plane, instead of a running `up`; its key is taken from INSULA_KEY
    #[arg(long, env = "INSULA_URL", hide_env_values = true, value_name = "URL", global = true)]
    url: Option<String>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What `up` leaves for us; it holds more than this.
#[derive(Deserialize)]
struct ReadyFile {
    control_url: String,
    admin_key: String,
}

impl Target {
    /// A client for it.
    pub(crate) fn client(&self) -> Result<Client, Error> {
        let key = std::env::var("INSULA_KEY").ok().filter(|key| !key.is_empty());
        match (&self.url, key) {
            (Some(url), Some(key)) => Ok(Client::new(url, &key)?),
            (Some(url), None) => {
                let help = "set INSULA_KEY to a key of that control plane (it begins with ik_)";
                Err(Error::new(Kind::Invalid, format!("no key for {url}"), help))
            }
            (None, key) => {
                let ready = read(&self.data)?;
                Ok(Client::new(&ready.control_url, key.as_deref().unwrap_or(&ready.admin_key))?)
            }
        }
    }
}

fn read(data: &Path) -> Result<ReadyFile, Error> {
    let path = data.join("ready.json");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        let help = match e.kind() {
            std::io::ErrorKind::NotFound => format!(
                "start one: `insula up --data {}`; or name its folder with --data or INSULA_DATA; \
                 or set INSULA_URL and INSULA_KEY",
                data.display()
            ),
            std::io::ErrorKind::PermissionDenied => "it holds the admin key: run this as the user who started `up`".to_owned(),
            _ => String::new(),
        };
        Error::new(Kind::Unavailable, format!("no running `insula up` found: {} cannot be read ({e})", path.display()), help)
    })?;
    // The parser's message could quote the key: it stays out.
    serde_json::from_str(&text).map_err(|_| {
        Error::new(Kind::Invalid, format!("{} is not a ready file", path.display()), "restart `insula up`: it writes a new one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_and_a_broken_ready_file_say_what_to_do() {
        let folder = tempfile::tempdir().expect("folder");
        let target = Target { data: folder.path().to_owned(), url: None, json: false };
        let missing = target.client().expect_err("missing");
        assert_eq!(missing.kind(), Kind::Unavailable);
        assert!(missing.help().contains("insula up --data"), "{}", missing.help());
        std::fs::write(folder.path().join("ready.json"), r#"{"admin_key":"ik_secret"}"#).expect("write");
        let broken = target.client().expect_err("broken");
        assert!(!format!("{broken} {}", broken.help()).contains("ik_secret"));
    }
}
