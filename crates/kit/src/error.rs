//! What can go wrong on the host side of a tenant database.

use insula_core::Kind;

use crate::holder::Holder;

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
    /// A migration of the application that Postgres refuses.
    #[error("migration {version} ({name}): {detail}")]
    Migration {
        /// Its number.
        version: i64,
        /// Its name.
        name: String,
        /// What Postgres says, with the line.
        detail: String,
    },
    /// A migration that waits for somebody's transaction.
    #[error("migration {version} ({name}) waits in schema {schema} for a transaction that stays open{}", in_the_way(.holders))]
    Held {
        /// Its number.
        version: i64,
        /// Its name.
        name: String,
        /// Where it was to run.
        schema: String,
        /// Whose transactions are open; none when they have ended since.
        holders: Vec<Holder>,
    },
    /// A schema that was made from other migrations than these.
    #[error("schema {schema} has a migration {version} that differs from the application's: it was made from another bundle")]
    Foreign {
        /// The schema.
        schema: String,
        /// The first that differs.
        version: i64,
    },
    /// A seed that Postgres refuses.
    #[error("the application's seed: {0}")]
    Seed(String),
    /// Tables that are not guarded.
    #[error("{place} could leak: {findings}")]
    Leaks {
        /// Where.
        place: String,
        /// What the lint says.
        findings: String,
    },
    /// Postgres said no.
    #[error("the database refused: {0}")]
    Database(#[from] sqlx::Error),
}

impl Error {
    /// What a caller should do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Version { .. } | Self::Name(_) | Self::Migration { .. } | Self::Seed(_) | Self::Leaks { .. } => Kind::Invalid,
            Self::Foreign { .. } => Kind::Conflict,
            Self::Privilege(_) => Kind::Denied,
            Self::NoTenant(_) => Kind::NotFound,
            Self::Busy(_) | Self::Held { .. } => Kind::Unavailable,
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

fn in_the_way(holders: &[Holder]) -> String {
    let all: Vec<String> = holders.iter().map(Holder::to_string).collect();
    if all.is_empty() { String::new() } else { format!(": {}", all.join("; ")) }
}

/// SQLSTATEs after which the same thing may well work: connection faults (08), shutting down and starting (57P0x), out of
/// connections, disk or memory (53), serialization and deadlock (40), lock not to be had and object in use (55).
#[must_use]
pub fn transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        // A server that dies in mid-message leaves half of one.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(d) => d.code().is_some_and(|c| {
            ["08", "40", "53"].iter().any(|class| c.starts_with(class))
                || matches!(&*c, "57P01" | "57P02" | "57P03" | "55006" | "55P03" | "58000" | "58030")
                // Two GRANTs on one object at once: Postgres has no code of its own for it.
                || (c == "XX000" && d.message().starts_with("tuple concurrently"))
        }),
        _ => false,
    }
}
