//! What an operator is told when a command fails: what is wrong, and what to do about it.

use insula_core::Kind;

/// A failed command. Prints as one message; [`Error::help`] is printed on a line of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A fault with a kind, in words for the operator. Never holds a secret.
    #[error("{message}")]
    Failed {
        /// Decides the exit code.
        kind: Kind,
        /// What is wrong.
        message: String,
        /// What to do about it; empty when the message says it all.
        help: String,
    },
}

impl Error {
    /// A fault with what to do about it.
    pub(crate) fn new(kind: Kind, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Failed { kind, message: message.into(), help: help.into() }
    }

    /// What went wrong, as a caller would act on it.
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Failed { kind, .. } => *kind,
        }
    }

    /// What to do about it.
    pub(crate) fn help(&self) -> &str {
        match self {
            Self::Failed { help, .. } => help,
        }
    }
}

impl From<insula_cluster::Error> for Error {
    fn from(error: insula_cluster::Error) -> Self {
        Self::new(error.kind(), error.to_string(), "")
    }
}
