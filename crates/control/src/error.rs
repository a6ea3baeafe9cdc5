//! What can go wrong in the control plane, in two voices: `Display` for the log, [`Error::public`] for whoever asked.
//!
//! Always: no variant holds a secret or a connection string; [`Error::transient`] alone decides what is tried again.

use insula_core::Kind;

/// A fault of the control plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input is wrong.
    #[error("{field}: {detail}")]
    Invalid {
        /// Which field, by its name in the request.
        field: &'static str,
        /// What is wrong, and what would be accepted.
        detail: String,
    },
    /// There is no such thing.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// It is there already, or the state does not allow it; the text says what to do.
    #[error("{0}")]
    Conflict(String),
    /// No cell has room.
    #[error("{0}")]
    Full(String),
    /// Somebody else changed it since it was read.
    #[error("{what} is at version {found}, not {expected}: read it again and repeat the change")]
    Version {
        /// What was to be changed.
        what: String,
        /// The version that the caller has seen.
        expected: i64,
        /// The version that it has.
        found: i64,
    },
    /// A migration of the application's bundle does not run.
    #[error("migration {version} ({name}) failed: {detail}")]
    Migration {
        /// Its version.
        version: i64,
        /// Its name.
        name: String,
        /// What Postgres says.
        detail: String,
    },
    /// The seed of the application's bundle does not run.
    #[error("the seed failed: {0}")]
    Seed(String),
    /// A database would leak.
    #[error("{database} would leak: {findings}")]
    Leaks {
        /// Which database.
        database: String,
        /// The findings, one after the other.
        findings: String,
    },
    /// The catalog's database.
    #[error("catalog: {0}")]
    Catalog(#[source] sqlx::Error),
    /// A cell's database server.
    #[error("cell {cell}: {source}")]
    Cell {
        /// Which cell.
        cell: String,
        /// What its server, or the way there, says.
        source: sqlx::Error,
    },
    /// The SQL kit in a cell.
    #[error("cell {cell}: {source}")]
    Kit {
        /// Which cell.
        cell: String,
        /// What the kit says.
        source: insula_kit::Error,
    },
    /// The catalog's schema.
    #[error("catalog schema: {0}")]
    Schema(#[source] insula_catalog::Error),
    /// It took longer than it is given.
    #[error("{0}")]
    Timeout(String),
    /// Another engine has taken the operation over.
    #[error("the lease on operation {0} is lost to another engine")]
    LeaseLost(uuid::Uuid),
    /// The idempotency key has an operation already.
    #[error("this idempotency key was used before")]
    Repeated,
    /// Something is away that will come back.
    #[error("{0}")]
    Away(String),
    /// The catalog, a file or the system holds what it must not.
    #[error("{0}")]
    Corrupt(String),
    /// Listening, or reading a file.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { field, detail: detail.into() }
    }

    pub(crate) fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    /// What a caller would do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } | Self::Migration { .. } | Self::Seed(_) | Self::Leaks { .. } => Kind::Invalid,
            Self::NotFound { .. } => Kind::NotFound,
            Self::Conflict(_) | Self::Full(_) | Self::Repeated => Kind::Conflict,
            Self::Version { .. } => Kind::Precondition,
            Self::Timeout(_) => Kind::Timeout,
            Self::Catalog(_) | Self::Cell { .. } | Self::Kit { .. } | Self::Schema(_) if self.transient() => Kind::Unavailable,
            Self::Kit { source, .. } => source.kind(),
            Self::Schema(source) => source.kind(),
            Self::Away(_) | Self::LeaseLost(_) => Kind::Unavailable,
            Self::Catalog(_) | Self::Cell { .. } | Self::Corrupt(_) | Self::Io { .. } => Kind::Internal,
        }
    }

    fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Kit { source, .. } => source.sqlstate(),
            Self::Cell { source, .. } => source.as_database_error()?.code().map(std::borrow::Cow::into_owned),
            _ => None,
        }
    }

    /// Whether trying again may help, with nothing changed.
    #[must_use]
    pub fn transient(&self) -> bool {
        match self {
            Self::Catalog(e) | Self::Cell { source: e, .. } => insula_kit::transient(e),
            Self::Kit { source: insula_kit::Error::Database(e), .. } => insula_kit::transient(e),
            Self::Kit { source, .. } => source.kind() == Kind::Unavailable,
            Self::Schema(source) => source.kind() == Kind::Unavailable,
            Self::Away(_) => true,
            _ => false,
        }
    }

    /// What the caller may read: names what he gave us and what he can do, never our insides.
    #[must_use]
    pub fn public(&self) -> String {
        match self {
            Self::Catalog(_) | Self::Schema(_) if self.transient() => {
                "the catalog's database does not answer just now; try again in a moment".into()
            }
            // Whose transaction it waits for is what an operator wants to know.
            Self::Kit { source: insula_kit::Error::Held { .. }, .. } => self.to_string(),
            Self::Cell { cell, .. } | Self::Kit { cell, .. } if self.transient() => {
                format!("the database server of cell {cell} does not answer just now; try again in a moment")
            }
            // The kit's own refusals are written for operators; what Postgres says is not.
            Self::Kit { cell, source } if !matches!(source, insula_kit::Error::Database(_)) => format!("cell {cell}: {source}"),
            Self::Cell { cell, .. } | Self::Kit { cell, .. } => {
                let state = self.sqlstate().map(|s| format!(" (SQLSTATE {s})")).unwrap_or_default();
                format!("the database server of cell {cell} refused{state}; the control plane's log has the reason")
            }
            Self::Catalog(_) | Self::Schema(_) | Self::Corrupt(_) | Self::Io { .. } => {
                "a fault in the control plane; its log has the reason".into()
            }
            other => other.to_string(),
        }
    }
}

/// Marks errors of the catalog's database.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Catalog(error)
    }
}
