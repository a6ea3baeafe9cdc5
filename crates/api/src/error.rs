//! Why a call of the API failed.

use insula_core::Kind;

use crate::problem::Problem;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control plane said no, and why.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Nothing answered at the address.
    #[error("no answer from {url}: {reason}")]
    Unreachable {
        /// The address, without credentials.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// The answer took too long.
    #[error("{url} did not answer within {seconds} seconds")]
    Timeout {
        /// The address, without credentials.
        url: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Something answered that does not speak this API.
    #[error("{url} answered {status} with something that is not of this API: is it the control plane, and of this version?")]
    Unexpected {
        /// The address, without credentials.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The address or the key cannot be used as given.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// What a caller would do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Problem(problem) => problem.error_kind(),
            Self::Unreachable { .. } => Kind::Unavailable,
            Self::Timeout { .. } => Kind::Timeout,
            Self::Unexpected { .. } => Kind::Internal,
            Self::Invalid(_) => Kind::Invalid,
        }
    }

    /// Exit code of a command that ends with this.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.kind().exit_code()
    }

    /// The problem, when the control plane gave one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }
}
