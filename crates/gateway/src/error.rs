//! Why a gateway does not start, or stops.

use std::net::SocketAddr;
use std::path::PathBuf;

use insula_core::Kind;

/// Why a gateway does not start, or stops. A request's misfortune is not here: that is an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be read.
    #[error("{}: {what}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        what: String,
    },
    /// A setting that can be read and makes no sense.
    #[error("[{part}] {what}")]
    Setting {
        /// The part of the settings.
        part: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// An address is taken or not ours.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The gateway that runs does not hand over.
    #[error("cannot take over from the gateway that runs: {0}")]
    Succession(std::io::Error),
    /// The catalog cannot be followed.
    #[error("the catalog cannot be followed: {0}")]
    Catalog(#[from] insula_catalog::Error),
    /// The admin port, or signals.
    #[error(transparent)]
    Telemetry(#[from] insula_telemetry::Error),
    /// A thread could not start, or died.
    #[error("worker {worker}: {what}")]
    Worker {
        /// Which one.
        worker: usize,
        /// What happened.
        what: String,
    },
}

impl Error {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Config { .. } | Self::Setting { .. } => Kind::Invalid,
            Self::Listen { .. } | Self::Succession(_) | Self::Catalog(_) => Kind::Unavailable,
            Self::Telemetry(_) | Self::Worker { .. } => Kind::Internal,
        }
    }
}
