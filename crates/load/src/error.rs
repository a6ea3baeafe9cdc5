//! What can be wrong with a load run before it begins.

use insula_core::Kind;

/// Why there is no run. What goes wrong with single requests is in the report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot be understood; the message quotes the part and says what would be right.
    #[error("{0}")]
    Invalid(String),
    /// Nobody listens at the gateway's address.
    #[error("cannot connect to {addr}: {source}")]
    Unreachable {
        /// The address.
        addr: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A thread, a timer or a runtime could not be made.
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
}

impl Error {
    /// What went wrong, as a caller would act on it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::Invalid,
            Self::Unreachable { .. } => Kind::Unavailable,
            Self::Worker(_) => Kind::Internal,
        }
    }
}
