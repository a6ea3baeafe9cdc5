//! What a process knows of the catalog, floor 2.
//!
//! For: following the control plane's database ([`Source`], [`PgSource`]), the snapshot in memory that requests are decided
//! from ([`Catalog`]: wait-free reads of a [`Route`] by host, slug or id), how old that knowledge is, a source for tests
//! ([`FakeSource`]), and the catalog's own schema ([`schema::migrate`]). Not for: writing to the catalog (the control plane does)
//! or deciding anything (`insula-planner` does).
//!
//! Always: a reader takes no lock, allocates nothing and waits for nobody; what it sees in one [`Catalog::look`] is the catalog at
//! one revision; and nobody is given a database's new fence for a tenant's old placement ([`Catalog::fence_of`]).

mod backoff;
mod catalog;
mod disk;
pub mod document;
mod error;
pub mod fake;
mod follower;
pub mod host;
mod http;
mod identity;
mod keeper;
mod leftovers;
mod plans;
mod postgres;
mod route;
pub mod row;
pub mod schema;
mod shared;
mod snapshot;
mod source;
mod table;
pub mod tls;
pub mod wire;
mod writer;

pub use catalog::{Catalog, Freshness, Options, RefreshError};
pub use document::{Document, DocumentVersion};
pub use error::Error;
pub use fake::FakeSource;
pub use http::HttpSource;
pub use identity::{ApiKey, Provider};
pub use postgres::PgSource;
pub use route::{Card, Route, RouteRef};
pub use row::{AppVersion, Cell, CellState, Replica, Tls};
pub use snapshot::{FENCE_UNKNOWN, Found, Known, View};
pub use source::Source;
