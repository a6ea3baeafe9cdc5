//! What can go wrong with a queue, and with one job.

use insula_core::Kind;

/// Why something could not be done with the queue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body cannot be written as JSON.
    #[error("a job of kind {kind} cannot be written as JSON: {source}")]
    Body {
        /// The kind.
        kind: &'static str,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The body is larger than a job may be.
    #[error(
        "the body of a job of kind {kind} has {bytes} bytes; {most} are allowed: keep large things in a table or in the object store"
    )]
    TooLarge {
        /// The kind.
        kind: &'static str,
        /// Its size.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// Keys were given for some jobs of a batch, or other options do not fit.
    #[error("{0}")]
    Options(&'static str),
    /// No cron pattern, no time zone, no window of the day.
    #[error(transparent)]
    Cron(#[from] insula_planner::cron::CronError),
    /// The tenant's transaction.
    #[error(transparent)]
    Data(#[from] insula_data::Error),
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A worker cannot serve a database.
    #[error("the queue of database {database} in cell {cell} cannot be served: {reason}")]
    Unreachable {
        /// The cell.
        cell: String,
        /// The database.
        database: String,
        /// Why.
        reason: String,
    },
    /// What the worker was given makes no sense.
    #[error("{0}")]
    Settings(String),
    /// No thread for the worker.
    #[error("the worker has no thread: {0}")]
    Thread(std::io::Error),
}

impl Error {
    /// What a caller would do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Body { .. } | Self::Options(_) | Self::Settings(_) | Self::Cron(_) => Kind::Invalid,
            Self::TooLarge { .. } => Kind::TooLarge,
            Self::Data(error) => error.kind(),
            Self::Sql(error) => insula_data::sql_kind(error),
            Self::Unreachable { .. } => Kind::Unavailable,
            Self::Thread(_) => Kind::Internal,
        }
    }
}

/// How a job says that it did not go well. The text goes to the dead letter and to who may see it there; keep secrets out of it.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Try again later, with backoff, as long as attempts are left.
    #[error("{0}")]
    Retry(String),
    /// Trying again is of no use: a dead letter at once.
    #[error("{0}")]
    Dead(String),
    /// Not its time: again after a delay, and not counted as an attempt.
    #[error("{reason}")]
    Later {
        /// Until it may run again.
        delay: std::time::Duration,
        /// Why.
        reason: String,
    },
}

impl JobError {
    /// To be tried again.
    pub fn retry(error: impl std::fmt::Display) -> Self {
        Self::Retry(error.to_string())
    }

    /// Of no use to try again.
    pub fn dead(error: impl std::fmt::Display) -> Self {
        Self::Dead(error.to_string())
    }
}

impl From<insula_data::Error> for JobError {
    fn from(error: insula_data::Error) -> Self {
        match error.kind() {
            // The tenant may not work now; that is not the job's fault.
            Kind::Suspended | Kind::Moved => Self::Later { delay: std::time::Duration::from_secs(5), reason: error.to_string() },
            _ => Self::Retry(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for JobError {
    fn from(error: sqlx::Error) -> Self {
        Self::Retry(error.to_string())
    }
}

impl From<Error> for JobError {
    fn from(error: Error) -> Self {
        match error {
            Error::Data(error) => error.into(),
            other => Self::Retry(other.to_string()),
        }
    }
}
