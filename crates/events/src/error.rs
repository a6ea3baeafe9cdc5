//! What can go wrong with events.

use insula_core::Kind;
use insula_core::keys::KeyError;

/// Why something could not be done with events or webhooks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body cannot be written as JSON.
    #[error("an event about {topic} cannot be written as JSON: {source}")]
    Body {
        /// The topic.
        topic: String,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The body is larger than an event may be.
    #[error(
        "the body of an event about {topic} has {bytes} bytes; {most} are allowed: keep large things in a table or in the object store"
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// Its size.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// Not a topic.
    #[error("{0:?} is no topic: words of a-z, 0-9, _ and - with dots between, at most 100 characters")]
    Topic(String),
    /// Not what a webhook may be.
    #[error("{field}: {expected}")]
    Webhook {
        /// Which part of it.
        field: &'static str,
        /// What would be accepted.
        expected: &'static str,
    },
    /// The tenant has as many webhooks as it may.
    #[error("there are {0} webhooks already, which is the most: remove one first")]
    Full(usize),
    /// A secret cannot be sealed or opened here.
    #[error("the secret of a webhook: {0}")]
    Key(#[from] KeyError),
    /// The tenant's transaction.
    #[error(transparent)]
    Data(#[from] insula_data::Error),
    /// The database.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// An outbox cannot be served.
    #[error("the outbox of database {database} in cell {cell} cannot be served: {reason}")]
    Unreachable {
        /// The cell.
        cell: String,
        /// The database.
        database: String,
        /// Why.
        reason: String,
    },
    /// The bus.
    #[error("NATS: {0}")]
    Bus(String),
}

impl Error {
    /// What a caller would do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Body { .. } | Self::Topic(_) | Self::Webhook { .. } => Kind::Invalid,
            Self::TooLarge { .. } => Kind::TooLarge,
            Self::Full(_) => Kind::Conflict,
            Self::Key(_) => Kind::Internal,
            Self::Data(error) => error.kind(),
            Self::Sql(error) => insula_data::sql_kind(error),
            Self::Unreachable { .. } | Self::Bus(_) => Kind::Unavailable,
        }
    }

    /// What the client may read of it: only what is about its own input.
    #[must_use]
    pub fn public(&self) -> Option<String> {
        match self {
            Self::Topic(_) | Self::Webhook { .. } | Self::Full(_) | Self::TooLarge { .. } => Some(self.to_string()),
            _ => None,
        }
    }
}
