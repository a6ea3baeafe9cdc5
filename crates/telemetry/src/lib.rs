//! How a process of Insula is watched and stopped: logs, metrics, the admin port, graceful drain.
//!
//! For: every house (control plane, application, later gateway and router). Not for: deciding anything, or for numbers per
//! tenant: those are usage meters, not metrics. Always: no tenant in a metric's labels ([`budget`] refuses them), no secret in a log,
//! and the admin port answers while the data path is saturated.

pub mod admin;
pub mod budget;
pub mod build;
pub mod cpu;
pub mod drain;
pub mod error;
pub mod lines;
pub mod logs;
pub mod meters;
pub mod parent;
pub mod readiness;
pub mod requests;
pub mod security;
pub mod senses;
pub mod sketch;
pub mod slo;
pub mod top;
pub mod trace;
pub mod usage;

pub use admin::Admin;
pub use drain::Shutdown;
pub use error::Error;
pub use readiness::{Gate, Readiness};
pub use requests::{Finished, Who};
pub use security::Alarm;
pub use senses::Senses;
pub use usage::{Meter, Usage};
