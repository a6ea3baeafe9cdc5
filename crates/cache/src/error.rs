//! Why a cache cannot be had.

use insula_core::Kind;

/// What can go wrong before a cache is there. Afterwards nothing does: a second level that fails is done without.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The second level's address is none. Its text is a secret and not shown.
    #[error("the address of the second level cannot be read: give redis://[:PASSWORD@]HOST:PORT/DATABASE")]
    Address,
}

impl Error {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        Kind::Invalid
    }
}
