//! What can fail while a process sets up its senses.

use std::net::SocketAddr;

use insula_core::Kind;

/// A failure of set-up. Nothing in this crate fails once it runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The admin port could not be had.
    #[error("cannot listen on {addr} for the admin port: {source}; choose another address or stop what holds it")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A thread or its runtime could not be started.
    #[error("cannot start the admin thread: {0}")]
    Thread(std::io::Error),
    /// Signal handlers could not be installed.
    #[error("cannot listen for signals: {0}")]
    Signal(std::io::Error),
    /// The kernel refused the parent-death signal.
    #[error("cannot tie this process to its parent: {0}")]
    Parent(nix::Error),
    /// The parent was gone before this process could be tied to it.
    #[error("the parent process {0} is gone; nothing supervises this process")]
    Orphan(u32),
    /// A filter in `RUST_LOG` is not one.
    #[error("RUST_LOG is not a log filter: {0}; try RUST_LOG=info,insula=debug")]
    Filter(String),
    /// Promises that cannot be read.
    #[error("the objectives are wrong: {0}")]
    Objectives(String),
    /// The folder in which usage waits cannot be had.
    #[error("usage cannot be kept in {folder}: {source}; give this process a folder of its own that it may write")]
    Journal {
        /// The folder.
        folder: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Where usage goes cannot be understood.
    #[error("usage cannot be sent: {0}")]
    Delivery(String),
    /// Where traces go cannot be understood.
    #[error("traces cannot be sent: {0}")]
    Traces(String),
    /// Another recorder was installed in this process.
    #[error("another metrics recorder is installed in this process")]
    Recorder,
}

impl Error {
    /// The kind, as callers act on it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Filter(_) | Self::Objectives(_) | Self::Traces(_) | Self::Delivery(_) => Kind::Invalid,
            Self::Listen { .. } | Self::Orphan(_) | Self::Journal { .. } => Kind::Unavailable,
            Self::Thread(_) | Self::Signal(_) | Self::Parent(_) | Self::Recorder => Kind::Internal,
        }
    }
}
