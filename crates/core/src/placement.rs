//! Where a tenant lives.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::slug::CellName;

/// How a tenant's rows are kept apart from others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Shared tables; the database filters by a verified grant.
    Row,
    /// A schema and a login role of its own.
    Schema,
    /// A database and a login role of its own.
    Database,
    /// A database server and an application stack of its own.
    Cell,
}

impl Isolation {
    /// All of them, from the most shared to the most separate.
    pub const ALL: [Self; 4] = [Self::Row, Self::Schema, Self::Database, Self::Cell];

    /// As the catalog writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Schema => "schema",
            Self::Database => "database",
            Self::Cell => "cell",
        }
    }

    /// Reads what [`Isolation::as_str`] wrote.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.as_str() == text)
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The database of `row` tenants in each cell.
pub const POOL_DATABASE: &str = "insula_pool";
/// The database of `schema` tenants in each cell.
pub const SCHEMAS_DATABASE: &str = "insula_schemas";
/// The template that tenant databases are made from, in each cell.
pub const TEMPLATE_DATABASE: &str = "insula_template";
/// The control plane's own database.
pub const CATALOG_DATABASE: &str = "insula_catalog";
/// The schema of application tables in every database but [`SCHEMAS_DATABASE`].
pub const APP_SCHEMA: &str = "app";
/// The role that applications log in as for `row` tenants: owns nothing, bypasses nothing.
pub const APP_ROLE: &str = "insula_app";
/// The role that owns the kit and every table; nobody logs in as it.
pub const OWNER_ROLE: &str = "insula_owner";
/// The role that owns what workers call on the queue; nobody logs in as it.
pub const QUEUE_ROLE: &str = "insula_queue";
/// The role that workers take jobs as: it may call the queue's functions, and nothing else.
pub const WORKER_ROLE: &str = "insula_worker";
/// The role through which data planes read the catalog.
pub const READER_ROLE: &str = "insula_reader";
/// The role that looks at how far a server's log has come, and may do nothing else: it may connect to [`MAINTENANCE_DATABASE`] alone.
pub const WATCH_ROLE: &str = "insula_watch";
/// The database that every server has, and that has no tenant.
pub const MAINTENANCE_DATABASE: &str = "postgres";
/// The line in a server's configuration file that offers the server module: where `insula_enter.so` is.
pub const SERVER_MODULE_SETTING: &str = "insula.server_module";

/// Where a placement stands in a move (`design.md`, "Moving a tenant").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MoveState {
    /// Not moving.
    Active,
    /// Being copied; reads and writes stay at the source.
    Migrating,
    /// Switched to the destination, still reversible.
    Cutover,
    /// The move is over and final.
    Final,
}

/// Tenant -> cell, database, schema, isolation, epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// The cell.
    pub cell: CellName,
    /// The database in the cell's server.
    pub database: Arc<str>,
    /// The schema that holds the application's tables.
    pub schema: Arc<str>,
    /// How rows are kept apart.
    pub isolation: Isolation,
    /// Grows with every change; a grant of an older epoch is refused.
    pub epoch: i64,
    /// Where a move stands.
    pub state: MoveState,
}

impl Placement {
    /// The role that the data plane logs in as for this tenant.
    #[must_use]
    pub fn role(&self) -> String {
        match self.isolation {
            Isolation::Row => APP_ROLE.to_owned(),
            Isolation::Schema => role_of(&self.schema),
            Isolation::Database | Isolation::Cell => role_of(&self.database),
        }
    }
}

/// The login role that owns the use of an opaque database (`d…`) or schema (`s…`): the same digits after `r`.
#[must_use]
pub fn role_of(opaque: &str) -> String {
    format!("r{}", opaque.get(1..).unwrap_or_default())
}

impl MoveState {
    /// As the catalog writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Migrating => "migrating",
            Self::Cutover => "cutover",
            Self::Final => "final",
        }
    }

    /// Reads what [`MoveState::as_str`] wrote.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        [Self::Active, Self::Migrating, Self::Cutover, Self::Final].into_iter().find(|s| s.as_str() == text)
    }
}
