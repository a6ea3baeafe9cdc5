//! The catalog's rows as a source hands them over: whole, parsed, and of one moment.

use std::sync::Arc;

use insula_core::feature::Overrides;
use insula_core::{
    CellName, KeyId, Placement, Plan, PlanName, ProviderId, Slug, TenantId, TenantNo, TenantSettings, TenantState,
};

use crate::identity::{ApiKey, Provider};

/// A tenant that may be reached: active or suspended, with its placement and its verified custom domains.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub features: Overrides,
    /// Limits that replace the plan's, by field.
    pub limits: serde_json::Map<String, serde_json::Value>,
    /// How it wants to appear.
    pub settings: TenantSettings,
    /// Where it lives.
    pub placement: Placement,
    /// Verified custom host names, normalised ([`crate::host::normalise`]).
    pub domains: Vec<String>,
}

/// A cell, as far as a data plane needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Base URL of its application stack, when it has one.
    pub app_url: Option<Arc<str>>,
}

/// How a cell's server wants TLS (libpq's `sslmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatabaseId {
    /// The cell.
    pub cell: CellName,
    /// The name on the cell's server.
    pub name: Arc<str>,
}

/// A database of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRow {
    /// Which.
    pub id: DatabaseId,
    /// Its fence count as of the placements committed with it.
    pub fence: i64,
    /// The grant key in force.
    pub kid: i32,
}

/// One page of a full load. Pages may come in any order; together they are the catalog at one revision.
#[derive(Clone, Debug, PartialEq)]
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
    /// Tenants.
    Tenants(Vec<TenantRow>),
}

/// What a change feed names, looked up: the row as it is now, or that it is gone (for a tenant: deleted, or not yet made).
#[derive(Clone, Debug, PartialEq)]
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
    /// A tenant, its placement or its domains.
    Tenant(TenantId, Option<Box<TenantRow>>),
}

/// All changes up to a revision, read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// The revision at that moment.
    pub revision: i64,
    /// What changed, each thing once, in any order.
    pub changes: Vec<Change>,
}
