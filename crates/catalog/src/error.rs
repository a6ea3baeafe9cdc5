//! What can go wrong between a process and the catalog.

use insula_core::Kind;

/// Why the catalog could not be read or set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL does not parse. It may hold a password, so it is not repeated.
    #[error("the catalog's URL is not valid: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url,
    /// The server answers, and has no catalog in this database.
    #[error("there is no catalog in this database (or this role may not read it): let the control plane set it up first")]
    Absent,
    /// The catalog does not answer.
    #[error("the catalog cannot be reached: {0}")]
    Unreachable(#[source] sqlx::Error),
    /// The control plane does not answer.
    #[error("the control plane cannot be reached: {0}")]
    Control(#[source] reqwest::Error),
    /// The control plane says no.
    #[error("the control plane refuses: {detail} (HTTP status {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it says, or what that status means here.
        detail: String,
    },
    /// What answers is no control plane, or the answer was cut off.
    #[error("the control plane's answer cannot be read: {0}")]
    Answer(String),
    /// The address or the key of a control plane cannot be used as given.
    #[error("{0}")]
    Setting(String),
    /// It did not answer in time.
    #[error("the catalog did not answer in time")]
    Timeout,
    /// The feed no longer holds all changes since the revision asked for: load everything anew.
    #[error("the change feed begins after revision {since}")]
    Trimmed {
        /// The revision asked for.
        since: i64,
    },
    /// A migration that was applied differs from the one in this program.
    #[error(
        "catalog migration {version} ({name}) was changed after it was applied: restore the file and add a new migration instead"
    )]
    MigrationChanged {
        /// Its version.
        version: i32,
        /// Its name.
        name: String,
    },
    /// A newer program set the catalog up.
    #[error("the catalog is at migration {found} and this program knows {known}: run a newer insula")]
    MigrationNewer {
        /// What the database has.
        found: i32,
        /// The newest one of this program.
        known: i32,
    },
    /// A migration failed; nothing of it was kept.
    #[error("catalog migration {version} ({name}) failed: {source}")]
    Migration {
        /// Its version.
        version: i32,
        /// Its name.
        name: &'static str,
        /// What Postgres said.
        source: sqlx::Error,
    },
    /// The snapshot file cannot be used.
    #[error("the snapshot on disk cannot be used: {0}")]
    Disk(String),
    /// A row that this program cannot read.
    #[error("the catalog holds a {what} that cannot be read: {detail}")]
    Row {
        /// What kind of row, and which.
        what: String,
        /// Why.
        detail: String,
    },
    /// The follower has stopped: every handle is gone or the runtime is shutting down.
    #[error("the catalog is no longer followed")]
    Stopped,
}

impl Error {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Url | Self::Setting(_) => Kind::Invalid,
            Self::Refused { status: 401 | 403, .. } => Kind::Denied,
            Self::Control(_) | Self::Refused { .. } => Kind::Unavailable,
            Self::Absent | Self::Unreachable(_) | Self::Trimmed { .. } | Self::Stopped => Kind::Unavailable,
            Self::Timeout => Kind::Timeout,
            Self::MigrationChanged { .. } | Self::MigrationNewer { .. } => Kind::Conflict,
            Self::Migration { .. } | Self::Row { .. } | Self::Answer(_) | Self::Disk(_) => Kind::Internal,
        }
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        // The address is known to whoever reads this.
        if error.is_timeout() { Self::Timeout } else { Self::Control(error.without_url()) }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Timeout,
            // undefined_table, invalid_schema_name, insufficient_privilege, invalid_catalog_name
            sqlx::Error::Database(e) if matches!(e.code().as_deref(), Some("42P01" | "3F000" | "42501" | "3D000")) => {
                Self::Absent
            }
            _ => Self::Unreachable(error),
        }
    }
}
