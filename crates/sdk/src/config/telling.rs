//! Settings of whom a process tells of events.

use std::fmt;
use std::path::PathBuf;

use super::ConfigError;
use super::text::{Vars, wrong};

const URL: &str = "INSULA_NATS_URL";
const CREDENTIALS: &str = "INSULA_NATS_CREDENTIALS";
const AUTHORITIES: &str = "INSULA_NATS_CA";
const REPLICAS: &str = "INSULA_NATS_REPLICAS";
const PRIVATE: &str = "INSULA_WEBHOOK_PRIVATE";
const WEBHOOK_CA: &str = "INSULA_WEBHOOK_CA";

pub(super) const NAMES: &[&str] = &[URL, CREDENTIALS, AUTHORITIES, REPLICAS, PRIVATE, WEBHOOK_CA];

/// Settings of whom a process tells of events.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    /// The bus; none, and events go to webhooks alone.
    pub bus: Option<Bus>,
    /// `INSULA_WEBHOOK_PRIVATE`: whether tenants' webhooks may lead to this machine and private networks (`on`), or only to the internet (`off`, the
    /// default).
    pub webhook_private: bool,
    /// `INSULA_WEBHOOK_CA`: certificate authorities that receivers of webhooks may have beside those of the web: a PEM file.
    pub webhook_authorities: Option<PathBuf>,
}

/// Where NATS is.
#[derive(Clone, Default)]
pub struct Bus {
    /// `INSULA_NATS_URL`: `nats://[USER:PASSWORD@]HOST:PORT` or `tls://…`, several with commas between. A secret.
    pub url: String,
    /// `INSULA_NATS_CREDENTIALS`: a file with credentials, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// `INSULA_NATS_CA`: certificate authorities of the server: a PEM file.
    pub authorities: Option<PathBuf>,
    /// `INSULA_NATS_REPLICAS`: servers of a cluster that keep each event. Default 1.
    pub replicas: usize,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("url", &"***").field("replicas", &self.replicas).finish_non_exhaustive()
    }
}

pub(super) fn read(vars: Vars<'_>) -> Result<Telling, ConfigError> {
    let path = |name| vars.get(name).map(PathBuf::from);
    let webhook_private = match vars.get(PRIVATE).unwrap_or("off") {
        "on" => true,
        "off" => false,
        other => return Err(wrong(PRIVATE, format!("{other:?} is neither on nor off"))),
    };
    Ok(Telling { bus: bus(vars)?, webhook_private, webhook_authorities: path(WEBHOOK_CA) })
}

fn bus(vars: Vars<'_>) -> Result<Option<Bus>, ConfigError> {
    let Some(url) = vars.get(URL) else {
        return match [CREDENTIALS, AUTHORITIES, REPLICAS].into_iter().find(|name| vars.get(name).is_some()) {
            Some(name) => Err(wrong(name, "it has no meaning without INSULA_NATS_URL")),
            None => Ok(None),
        };
    };
    if !cfg!(feature = "nats") {
        return Err(wrong(URL, "this application was built without insula's feature \"nats\""));
    }
    let known = |url: &str| url.starts_with("nats://") || url.starts_with("tls://");
    if !url.split(',').all(|url| known(url.trim())) {
        return Err(wrong(URL, "give nats://HOST:PORT or tls://HOST:PORT, several with commas between"));
    }
    let replicas = match vars.get(REPLICAS) {
        None => 1,
        Some(text) => {
            let number = text.parse().ok().filter(|n| (1..=5).contains(n));
            number.ok_or_else(|| wrong(REPLICAS, format!("{text:?} is not a number from 1 to 5")))?
        }
    };
    let path = |name| vars.get(name).map(PathBuf::from);
    Ok(Some(Bus { url: url.to_owned(), credentials: path(CREDENTIALS), authorities: path(AUTHORITIES), replicas }))
}
