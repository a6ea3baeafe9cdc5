//! What can go wrong on the host side of a tenant database.

use insula_core::Kind;

/// An error of the kit. Messages are for operators: they name databases and roles, never keys or passwords.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's version cannot hold the boundary.
    #[error("Postgres {found} is refused: {reason}")]
    Version {
        /// What the server says that it is.
        found: String,
        /// Why it will not do, and what will.
        reason: String,
    },
    /// The administrator's role lacks something.
    #[error("{0}")]
    Privilege(String),
    /// A name that is not a plain lower-case identifier.
    #[error("\"{0}\" is not a name the kit uses: lower-case letters, digits and _, at most 63")]
    Name(String),
    /// The tenant is not registered in this database.
    #[error("tenant {0} is not registered in this database")]
    NoTenant(i64),
    /// The tenant's transactions did not end in time.
    #[error("tenant {0} still has open transactions that could not be ended")]
    Busy(i64),
    /// Postgres said no.
    #[error("the database refused: {0}")]
    Database(#[from] sqlx::Error),
}

impl Error {
    /// What a caller should do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Version { .. } | Self::Name(_) => Kind::Invalid,
            Self::Privilege(_) => Kind::Denied,
            Self::NoTenant(_) => Kind::NotFound,
            Self::Busy(_) => Kind::Unavailable,
            Self::Database(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => Kind::Unavailable,
            Self::Database(_) => Kind::Internal,
        }
    }

    /// The SQLSTATE, when Postgres gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Database(sqlx::Error::Database(e)) => e.code().map(std::borrow::Cow::into_owned),
            _ => None,
        }
    }
}
