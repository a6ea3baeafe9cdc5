//! What can go wrong with posting, and with one post.

use std::path::PathBuf;

use insula_core::Kind;

/// Why nothing can be posted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate authorities cannot be read.
    #[error("the webhooks' authorities at {path}: {why}", path = path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No TLS.
    #[error("TLS does not start: {0}")]
    Tls(rustls::Error),
}

impl Error {
    /// What a caller would do about it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Authorities { .. } => Kind::Invalid,
            Self::Tls(_) => Kind::Internal,
        }
    }
}

/// Why there was no answer. Never holds the URL: it may carry a token of the receiver's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub(crate) String);
