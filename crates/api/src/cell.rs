//! Cells: database servers with their application stacks.

use chrono::{DateTime, Utc};
use insula_core::CellName;
use serde::{Deserialize, Serialize};

/// Who starts a cell's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// `insula up` does.
    Embedded,
    /// Somebody else did; it was registered.
    Registered,
}

/// Where a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CellState {
    /// The supervisor is to start it.
    Requested,
    /// It takes tenants.
    Ready,
    /// It takes no new tenants; those it has are served.
    Draining,
    /// Registered for one tenant of isolation `cell`, and unused.
    Free,
    /// The last health check failed.
    Down,
    /// The supervisor is to stop it and take it away.
    Removing,
}

/// How connections to a cell's server are secured (as libpq's `sslmode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Never.
    Disable,
    /// When the server can.
    #[default]
    Prefer,
    /// Always, whoever answers.
    Require,
    /// Always, and the certificate is the host's.
    VerifyFull,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Cell {
    /// Its name.
    pub name: CellName,
    /// Where in the world.
    pub region: String,
    /// What placement may ask for: `eu-only`, `ssd`.
    pub labels: Vec<String>,
    /// Who starts its server.
    pub provider: Provider,
    /// Where it stands.
    pub state: CellState,
    /// For one tenant of isolation `cell`.
    pub dedicated: bool,
    /// Where its server listens; null until it does.
    pub host: Option<String>,
    /// The server's port; null until it listens.
    pub port: Option<u16>,
    /// How connections to it are secured.
    pub tls: Tls,
    /// Base URL of its application stack, when it has one.
    pub app_url: Option<String>,
    /// Its application stacks by the schema versions that they serve; when there are any, they go before `app_url`.
    #[serde(default)]
    pub app_versions: Vec<AppVersion>,
    /// Standbys of its server, which reads may go to.
    #[serde(default)]
    pub replicas: Vec<Replica>,
    /// Most tenants.
    pub capacity: u32,
    /// Tenants it has.
    pub tenants: u64,
    /// Which binding of the SQL kit is in force; null until the kit is installed.
    pub kit_way: Option<i32>,
    /// Grows with every change; the `ETag` is `"<version>"`.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// An application stack of a cell that serves tenants of some schema versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppVersion {
    /// Its base URL.
    pub url: String,
    /// The oldest schema version that it serves.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub min_schema: i64,
    /// The newest one; null: all that are newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_schema: Option<i64>,
    /// Its share of the tenants whom several serve, against the other weights; 0 gives it none.
    #[serde(default = "default_weight")]
    #[schema(maximum = 1000)]
    pub weight: u32,
}

const fn default_weight() -> u32 {
    1
}

/// Says which application stacks a cell has, instead of those it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutApps {
    /// At most 16; none: `app_url` serves every tenant.
    #[schema(max_items = 16)]
    pub apps: Vec<AppVersion>,
}

/// A standby of a cell's server. It is reached with the cell's own TLS mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// Where it listens.
    #[schema(min_length = 1, max_length = 253)]
    pub host: String,
    /// Its port; 5432 unless given.
    #[serde(default = "default_port")]
    pub port: u16,
}

impl std::fmt::Display for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // As in a URL, so that the port is told from an IPv6 address.
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for Replica {
    type Err = String;

    /// Reads `HOST` or `HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        // An IPv6 address without a port has colons, too.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = port.map_or(Ok(default_port()), str::parse).map_err(|_| format!("{text:?} is not like HOST:PORT"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() { Err(format!("{text:?} is not like HOST:PORT")) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

/// Registers a Postgres server (15 or newer) as a cell. Its admin login is not part of the request: put it into the host
/// side's secrets file under the same name first. The cell is `requested` until the SQL kit is installed in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterCell {
    /// Its name.
    pub name: CellName,
    /// Where its server listens.
    #[schema(min_length = 1, max_length = 253)]
    pub host: String,
    /// The server's port; 5432 unless given.
    #[serde(default = "default_port")]
    pub port: u16,
    /// How connections to it are secured.
    #[serde(default)]
    pub tls: Tls,
    /// Where in the world.
    #[serde(default = "default_region")]
    #[schema(max_length = 60)]
    pub region: String,
    /// What placement may ask for.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Base URL of its application stack, when it has one.
    #[serde(default)]
    pub app_url: Option<String>,
    /// Most tenants.
    #[serde(default = "default_capacity")]
    pub capacity: u32,
    /// Keep it for one tenant of isolation `cell`.
    #[serde(default)]
    pub dedicated: bool,
}

const fn default_port() -> u16 {
    5432
}
fn default_region() -> String {
    "local".to_owned()
}
const fn default_capacity() -> u32 {
    10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_read() {
        let read = |text: &str| text.parse::<Replica>().map(|r| (r.host, r.port));
        assert_eq!(read("db2:5433"), Ok(("db2".to_owned(), 5433)));
        assert_eq!(read("db2"), Ok(("db2".to_owned(), 5432)));
        assert_eq!(read("[::1]:5433"), Ok(("::1".to_owned(), 5433)));
        assert_eq!(read("fd00::2"), Ok(("fd00::2".to_owned(), 5432)));
        assert_eq!("[::1]:5433".parse::<Replica>().expect("an address").to_string(), "[::1]:5433");
        assert!(read("db2:x").is_err() && read(":5432").is_err() && read("db2:70000").is_err());
    }
}
