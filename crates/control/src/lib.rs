//! The control plane: everything that makes, changes and ends tenants, cells and plans.
//!
//! For: durable operations on tenants ([`Control`]), the REST API over them ([`rest`]), reconcilers, webhooks. Not for:
//! serving tenants' requests (the data planes do that from their snapshots, and go on without us).
//! Always: the catalog is the only truth; whatever is made outside it is named there first, so that nothing is orphaned;
//! every deed has its audit line; secrets are derived from the root key, never stored.

mod auth;
mod bundle_apply;
mod cell_prepare;
mod cell_provider;
mod cells;
mod certificate_watch;
mod check;
pub mod config;
mod console;
pub mod dns;
mod doors;
mod error;
mod feed_trim;
mod handle;
mod kit_upgrade;
mod lint;
mod migrations;
pub mod model;
mod operation;
mod password;
mod provision;
mod queue;
pub mod reconcile;
pub mod rest;
mod run;
mod store;
mod tenant_delete;
mod tenant_resume;
mod tenant_suspend;
mod warm_pool;
mod watch;
mod webhook;

pub use config::{CellSpec, Config};
pub use error::Error;
pub use handle::Control;
pub use operation::fault;
pub use run::{Background, run};
