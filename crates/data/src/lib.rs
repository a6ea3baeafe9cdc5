//! Data access: pools, tenant-bound transactions, the fast lane.
//!
//! For: giving a tenant's work a transaction in which the database shows that tenant's rows and no other's. Not for: the SQL
//! that enforces it (`insula-kit`), or knowing where a tenant lives (`insula-catalog`).
//!
//! Always: no tenant, no connection; a connection never leaves this crate; a connection serves again only when proven clean;
//! waiting is bounded and fair; nothing that was sent with a COMMIT is sent twice.

mod bell;
mod circuit;
mod config;
mod conn;
mod data;
mod error;
mod executor;
pub mod gate;
mod gauges;
pub mod lane;
mod pool;
mod pools;
mod read;
mod retry;
mod slots;
mod standby;
mod turnstile;
mod tx;
mod wallet;

pub use config::DataConfig;
pub use data::Data;
pub use error::{Error, sql_kind, sqlstate};
pub use tx::TenantTx;
