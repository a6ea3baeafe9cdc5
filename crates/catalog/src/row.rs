//! The catalog's rows as a source hands them over: whole, parsed, and of one moment. As JSON they are what goes over the wire
//! ([`crate::wire`]), so a field that is added is given a default.

use std::sync::Arc;

use insula_core::feature::Overrides;
use insula_core::{
    CellName, KeyId, Placement, Plan, PlanName, ProviderId, Slug, TenantId, TenantNo, TenantSettings, TenantState,
};
use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::identity::{ApiKey, Provider};

/// A tenant that may be reached: active or suspended, with its placement and its verified custom domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRow {
    /// Identity.
    pub id: TenantId,
    /// Its number in `tenant_id` columns.
    pub no: TenantNo,
    /// DNS label.
    pub slug: Slug,
    /// Display name.
    pub name: String,
    /// Active or suspended.
    pub state: TenantState,
    /// What it bought.
    pub plan: PlanName,
    /// Features that replace the plan's, for good or for a time.
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub features: Overrides,
    /// Limits that replace the plan's, by field.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub limits: serde_json::Map<String, serde_json::Value>,
    /// How it wants to appear.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: TenantSettings,
    /// Where it lives.
    pub placement: Placement,
    /// The last application migration that its tables have.
    #[serde(default)]
    pub schema_version: i64,
    /// Verified custom host names, normalised ([`crate::host::normalise`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A cell, as far as a data plane needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Its name.
    pub name: CellName,
    /// Where its server listens; `None` until it does.
    pub host: Option<Arc<str>>,
    /// The server's port.
    pub port: Option<u16>,
    /// How to speak TLS to the server, as libpq's `sslmode` says it.
    pub tls: Tls,
    /// Whether it takes tenants, and whether it is up.
    pub state: CellState,
    /// Base URL of its application stack, when it has one that serves every tenant.
    pub app_url: Option<Arc<str>>,
    /// Its application stacks by the schema versions that they serve; they go before `app_url`.
    #[serde(default = "no_versions", skip_serializing_if = "<[_]>::is_empty")]
    pub app_versions: Arc<[AppVersion]>,
    /// Standbys of its server: reads may go there when the tenant's plan says so and they are fresh.
    #[serde(default = "no_replicas", skip_serializing_if = "<[_]>::is_empty")]
    pub replicas: Arc<[Replica]>,
}

/// A standby of a cell's server, under the cell's own TLS mode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// Where it listens.
    pub host: Arc<str>,
    /// Its port.
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

fn no_replicas() -> Arc<[Replica]> {
    Arc::new([])
}

fn no_versions() -> Arc<[AppVersion]> {
    Arc::new([])
}

/// An application stack of a cell that serves tenants of some schema versions: two stand side by side while tenants are brought
/// from one version to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppVersion {
    /// Its base URL.
    pub url: Arc<str>,
    /// The oldest schema version that it serves.
    #[serde(default)]
    pub min_schema: i64,
    /// The newest one; `None`: all that are newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_schema: Option<i64>,
    /// Its share of the tenants whom several serve, against the other weights.
    #[serde(default = "one")]
    pub weight: u32,
}

const fn one() -> u32 {
    1
}

impl AppVersion {
    /// Whether it serves tenants of a schema version.
    #[must_use]
    pub fn serves(&self, schema_version: i64) -> bool {
        schema_version >= self.min_schema && self.max_schema.is_none_or(|max| schema_version <= max)
    }
}

impl Cell {
    /// The application stack that serves a tenant: of those that serve its schema version one by weight, always the same for the
    /// same tenant while the list stays (rendezvous hashing: a change of the list moves no more tenants than it must). A cell
    /// without a list serves all by `app_url`. `None`: the cell has no stack for this tenant now, and no other may be tried, as
    /// it would meet tables that it does not know.
    #[must_use]
    pub fn app_for(&self, no: TenantNo, schema_version: i64) -> Option<&Arc<str>> {
        if self.app_versions.is_empty() {
            return self.app_url.as_ref();
        }
        let serving = self.app_versions.iter().filter(|app| app.weight > 0 && app.serves(schema_version));
        let best = serving.map(|app| (score(app, no), app)).max_by(|a, b| a.0.total_cmp(&b.0));
        best.map(|(_, app)| &app.url)
    }
}

/// How much an application wants a tenant (weighted rendezvous hashing, after Schindelhauer and Schomaker, 2005).
fn score(app: &AppVersion, no: TenantNo) -> f64 {
    // FNV-1a and the finaliser of SplitMix64: the same in every process.
    let bytes = app.url.bytes().chain(no.get().to_le_bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    // 53 bits make a number strictly between 0 and 1.
    let unit = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(app.weight) / unit.ln()
}

/// How a cell's server wants TLS (libpq's `sslmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Never.
    Disable,
    /// When the server has it.
    Prefer,
    /// Always; the certificate is not checked.
    Require,
    /// Always, with the certificate and its name checked.
    VerifyFull,
}

/// The state of a cell (`catalog.cell.state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CellState {
    /// The supervisor is to start it.
    Requested,
    /// It takes tenants.
    Ready,
    /// It serves and takes no new ones.
    Draining,
    /// Registered and unused.
    Free,
    /// The last health check failed.
    Down,
    /// The supervisor is to stop it and take it away.
    Removing,
}

macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// As the catalog writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Reads what [`Self::as_str`] wrote.
            #[must_use]
            pub fn from_name(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words!(Tls { Disable = "disable", Prefer = "prefer", Require = "require", VerifyFull = "verify-full" });
words!(CellState {
    Requested = "requested",
    Ready = "ready",
    Draining = "draining",
    Free = "free",
    Down = "down",
    Removing = "removing",
});

/// Identity of a database: cell and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DatabaseId {
    /// The cell.
    pub cell: CellName,
    /// The name on the cell's server.
    pub name: Arc<str>,
}

/// A database of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRow {
    /// Which.
    pub id: DatabaseId,
    /// Its fence count as of the placements committed with it.
    pub fence: i64,
    /// The grant key in force.
    pub kid: i32,
}

/// One page of a full load. Pages may come in any order; together they are the catalog at one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Page {
    /// Plans.
    Plans(Vec<Plan>),
    /// Cells.
    Cells(Vec<Cell>),
    /// Databases.
    Databases(Vec<DatabaseRow>),
    /// Identity providers.
    Providers(Vec<Provider>),
    /// API keys of tenants that are in force.
    Keys(Vec<ApiKey>),
    /// Configuration documents.
    Documents(Vec<Document>),
    /// Tenants.
    Tenants(Vec<TenantRow>),
}

/// What a change feed names, looked up: the row as it is now, or that it is gone (for a tenant: deleted, or not yet made).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A plan.
    Plan(PlanName, Option<Plan>),
    /// A cell.
    Cell(CellName, Option<Cell>),
    /// A database.
    Database(DatabaseId, Option<DatabaseRow>),
    /// An identity provider.
    Provider(ProviderId, Option<Provider>),
    /// An API key of a tenant; `None` also when it was revoked.
    Key(KeyId, Option<ApiKey>),
    /// A configuration document.
    Document(Arc<str>, Option<Document>),
    /// A tenant, its placement or its domains.
    Tenant(TenantId, Option<Box<TenantRow>>),
}

/// All changes up to a revision, read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// The revision at that moment.
    pub revision: i64,
    /// What changed, each thing once, in any order.
    pub changes: Vec<Change>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(url: &str, min_schema: i64, max_schema: Option<i64>, weight: u32) -> AppVersion {
        AppVersion { url: url.into(), min_schema, max_schema, weight }
    }

    fn cell(app_versions: Vec<AppVersion>) -> Cell {
        Cell { app_versions: app_versions.into(), ..crate::fake::cell("main", "h", 1).unwrap() }
    }

    fn no(n: i64) -> TenantNo {
        TenantNo::new(n).unwrap()
    }

    #[test]
    fn a_tenant_is_sent_to_what_serves_its_schema() {
        let mut cell = cell(vec![app("blue", 0, Some(6), 1), app("green", 7, None, 1)]);
        cell.app_url = Some("all".into());
        assert_eq!(cell.app_for(no(1), 6).unwrap().as_ref(), "blue");
        assert_eq!(cell.app_for(no(1), 7).unwrap().as_ref(), "green");
        cell.app_versions = vec![app("green", 7, None, 1)].into();
        assert_eq!(cell.app_for(no(1), 6), None, "and to no other");
        cell.app_versions = no_versions();
        assert_eq!(cell.app_for(no(1), 6).unwrap().as_ref(), "all");
    }

    #[test]
    fn weights_share_tenants_and_keep_them() {
        let both = cell(vec![app("blue", 0, None, 3), app("green", 0, None, 1)]);
        let blue = |cell: &Cell| (1..=8000).filter(|n| cell.app_for(no(*n), 1).unwrap().as_ref() == "blue").collect::<Vec<_>>();
        let before = blue(&both);
        assert!((5800..6200).contains(&before.len()), "{}", before.len());
        let more = cell(vec![app("blue", 0, None, 1), app("green", 0, None, 1)]);
        let after = blue(&more);
        assert!((3800..4200).contains(&after.len()), "{}", after.len());
        assert!(after.iter().all(|n| before.binary_search(n).is_ok()), "nobody moves to what became lighter");
        assert!(blue(&cell(vec![app("blue", 0, None, 0), app("green", 0, None, 1)])).is_empty());
    }
}
