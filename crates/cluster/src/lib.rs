//! Private Postgres servers on this machine: found, made, started, watched and stopped.
//!
//! For: `insula up` and tests, which run Postgres from the binaries that the machine has. Not for: servers that somebody
//! else runs, and nothing here speaks SQL.
//!
//! Always: a server listens on loopback alone and asks for a password; it never runs as root; it dies with the process
//! that started it, by a fast shutdown that loses nothing; whatever was killed, the next start recovers, or says why not.

#![allow(
    clippy::disallowed_methods,
    reason = "on blocking threads: a foreign process offers nothing to wait for but looking again"
)]

mod account;
mod binaries;
mod config;
mod error;
mod folder;
mod orphan;
mod process;
mod replica;
mod server;

pub use binaries::Binaries;
pub use config::{ClusterConfig, Durability};
pub use error::Error;
pub use folder::open_log;
pub use process::{Exit, Process};
pub use server::Cluster;

/// The oldest Postgres that is used: the boundary needs `GRANT SET ON PARAMETER`.
pub const OLDEST_MAJOR: u32 = 15;
