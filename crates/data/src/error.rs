//! What can go wrong between a tenant's work and its rows.

use std::sync::Arc;
use std::time::Duration;

use insula_core::scope::NoTenant;
use insula_core::{CellName, Kind, TenantId};

use crate::gate::Refusal;
use crate::lane::WireError;

/// Why there is no transaction, or why it did not end well. The text is for our own log, not for clients.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Work without a tenant.
    #[error(transparent)]
    NoTenant(#[from] NoTenant),
    /// The catalog knows no such tenant, or it is deleted.
    #[error("tenant {0} is not in the catalog")]
    UnknownTenant(TenantId),
    /// The host side paused the tenant.
    #[error("tenant {0} is suspended")]
    Suspended(TenantId),
    /// Still being provisioned.
    #[error("tenant {0} is not ready yet")]
    NotReady(TenantId),
    /// The database says that the tenant is no longer there, and a fresh route says the same.
    #[error("tenant {0} is moving")]
    Moved(TenantId),
    /// A transaction was asked for one tenant, or used, inside the scope of another.
    #[error("asked for tenant {asked} inside the scope of tenant {scope}: enter the other tenant's scope first")]
    Mismatch {
        /// Whose scope it is.
        scope: TenantId,
        /// Whose transaction was asked for.
        asked: TenantId,
    },
    /// The database refused our grant although the route is fresh: keys, clocks or kit do not agree, or somebody forges.
    #[error("the database refused the grant: {0}")]
    GrantRefused(String),
    /// The statement may not run in a tenant's transaction.
    #[error(transparent)]
    Statement(#[from] Refusal),
    /// The tenant holds as many connections as it may, and waited as long as its plan allows.
    #[error("the tenant has {max} connections in use, the most that it may have")]
    TenantBusy {
        /// Connections of the plan, or of the pool that is the tenant's own.
        max: u32,
        /// When to come back.
        retry_after: Duration,
    },
    /// No connection became free in time: others hold them. Said of no pool that is a tenant's own.
    #[error("no database connection became free in time")]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
    /// The cell cannot be reached, or not with our credentials.
    #[error("cell {cell} is unavailable: {reason}")]
    Unavailable {
        /// Which cell.
        cell: CellName,
        /// What the driver says.
        reason: String,
    },
    /// The cell wants TLS, which the fast lane does not speak.
    #[error("the fast lane speaks no TLS, which cell {cell} wants: use a transaction (`begin`) for its tenants")]
    LaneWithoutTls {
        /// Which cell.
        cell: CellName,
    },
    /// The database keeps failing, or keeps refusing this tenant, and is left alone for a moment.
    #[error("database {database} of cell {cell} keeps failing: not asked for the moment")]
    CircuitOpen {
        /// Which cell.
        cell: CellName,
        /// Which database.
        database: Arc<str>,
        /// When to come back.
        retry_after: Duration,
    },
    /// The connection was lost after COMMIT was sent: it may have happened or not. Never retried by us.
    #[error("the connection was lost while committing: the outcome is unknown")]
    CommitUnknown,
    /// An earlier statement failed, so the transaction was rolled back instead of committed.
    #[error("a statement of this transaction failed, so it was rolled back")]
    RolledBack,
    /// The database answered with an error, or the driver failed.
    #[error(transparent)]
    Sql(sqlx::Error),
    /// The same, in the fast lane.
    #[error(transparent)]
    Lane(#[from] WireError),
}

impl Error {
    /// What a caller would do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoTenant(_) | Self::UnknownTenant(_) => Kind::NoTenant,
            Self::Suspended(_) => Kind::Suspended,
            Self::Moved(_) => Kind::Moved,
            Self::Mismatch { .. } | Self::GrantRefused(_) | Self::Statement(_) => Kind::Security,
            Self::TenantBusy { .. } => Kind::Limited,
            Self::NotReady(_) | Self::Busy { .. } | Self::Unavailable { .. } | Self::CircuitOpen { .. } => Kind::Unavailable,
            Self::CommitUnknown | Self::RolledBack | Self::LaneWithoutTls { .. } => Kind::Internal,
            Self::Sql(error) => sql_kind(error),
            Self::Lane(WireError::Server(error)) => state_kind(&error.code),
            Self::Lane(WireError::Lost(_)) => Kind::Unavailable,
            Self::Lane(WireError::Types) => Kind::Internal,
        }
    }

    /// The server's SQLSTATE, when this is its own answer.
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Sql(error) => sqlstate(error),
            Self::Lane(WireError::Server(error)) => Some(error.code.clone()),
            _ => None,
        }
    }

    /// The connection is gone, or could not be had.
    pub(crate) fn is_connection_loss(&self) -> bool {
        match self {
            Self::Sql(error) => is_connection_loss(error),
            Self::Lane(WireError::Server(error)) => is_server_away(&error.code),
            Self::Lane(WireError::Lost(_)) => true,
            _ => false,
        }
    }

    /// When to come back, where that helps.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TenantBusy { retry_after, .. } | Self::Busy { retry_after } | Self::CircuitOpen { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::Moved(_) | Self::NotReady(_) | Self::Unavailable { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl From<Error> for sqlx::Error {
    /// For the way through sqlx; [`Error::from`] finds it again.
    fn from(error: Error) -> Self {
        match error {
            Error::Sql(error) => error,
            ours => Self::AnyDriverError(Box::new(ours)),
        }
    }
}

impl From<sqlx::Error> for Error {
    /// Finds our own errors again that travelled through sqlx.
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::AnyDriverError(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(inner) => Self::Sql(sqlx::Error::AnyDriverError(inner)),
            },
            other => Self::Sql(other),
        }
    }
}

/// The SQLSTATE of an error that the server sent.
#[must_use]
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|e| e.code()).map(std::borrow::Cow::into_owned)
}

/// The kind of a statement's error. Constraint violations are a conflict; most others are faults of the application.
#[must_use]
pub fn sql_kind(error: &sqlx::Error) -> Kind {
    if let sqlx::Error::AnyDriverError(inner) = error
        && let Some(ours) = inner.downcast_ref::<Error>()
    {
        return ours.kind();
    }
    match sqlstate(error) {
        Some(code) => state_kind(&code),
        None if matches!(error, sqlx::Error::RowNotFound) => Kind::NotFound,
        None if is_connection_loss(error) => Kind::Unavailable,
        None => Kind::Internal,
    }
}

fn state_kind(code: &str) -> Kind {
    match code {
        "28T01" => Kind::Moved,
        "28T02" => Kind::Suspended,
        // 42501 is also what a row of another tenant gets from WITH CHECK.
        "28000" | "42501" => Kind::Security,
        "57014" | "25P03" | "55P03" => Kind::Timeout,
        "23505" | "23P01" => Kind::Conflict,
        // Class 53: the disk is full, or memory; nothing is wrong with the request.
        code if code.starts_with("53") || is_repeatable(code) || is_server_away(code) => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

/// Serialization failure and deadlock: the same work may succeed when it runs again from its beginning.
pub(crate) fn is_repeatable(code: &str) -> bool {
    matches!(code, "40001" | "40P01")
}

/// The server ended the session, is starting, or has no place.
pub(crate) fn is_server_away(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "57P01" | "57P02" | "57P03" | "57P05" | "53300")
}

/// The connection is gone.
pub(crate) fn is_connection_loss(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        other => sqlstate(other).is_some_and(|code| is_server_away(&code)),
    }
}
