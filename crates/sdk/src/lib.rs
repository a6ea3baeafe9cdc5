//! Make an axum and sqlx application multi-tenant: one layer, one extractor.
//!
//! ```no_run
#![doc = include_str!("../examples/quickstart.rs")]
//! ```
//!
//! For: connecting to the catalog, finding each request's tenant, giving it its own transaction, errors that do not leak,
//! serving and stopping. Not for: provisioning and plans (the control plane), or SQL of any sort.
//! Always: a handler has a tenant or is not called; with no tenant there is no connection; what goes wrong inside stays inside.

pub mod alone;
pub mod cache;
pub mod config;
mod contexts;
pub mod error;
pub mod events;
pub mod extract;
pub mod feature;
pub mod handle;
mod health;
mod keys;
mod links;
pub mod objects;
pub mod outgoing;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod senses;
pub mod serve;
pub mod tenant;
#[cfg(feature = "tonic")]
pub mod tonic;
pub mod webhooks;

pub use config::{Config, ConfigError};
pub use error::{Error, Result};
pub use extract::{Form, Json, Query};
pub use feature::Feature;
pub use handle::{ConnectError, Insula, InsulaLayer};
pub use insula_api::bundle::{Bundle, Migration};
pub use insula_core::feature::Features;
pub use insula_core::scope::{spawn, spawn_blocking};
pub use insula_core::{FeatureValue, Kind, Principal, TenantContext, scope};
pub use insula_data::TenantTx;
pub use insula_http::{Admission, AdmissionConfig, AdmitLayer, Identity, Problem};
pub use insula_jobs as jobs;
pub use insula_macros::requires;
pub use outgoing::{OutgoingError, Services};
pub use serve::{ServeError, serve, serve_on, service, work};
pub use tenant::Tenant;
