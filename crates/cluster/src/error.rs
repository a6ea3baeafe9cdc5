//! What can go wrong, told so that the reader can mend it.

use std::path::PathBuf;

use insula_core::Kind;

/// Why a private Postgres could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No Postgres on this machine.
    #[error(
        "no Postgres {oldest} or newer on this machine; install it with `apt-get install postgresql` \
         (Homebrew: `brew install postgresql@17`), or name its bin folder with --postgres-bin or INSULA_PG_BIN{found}"
    )]
    NoBinaries {
        /// The oldest that would do.
        oldest: u32,
        /// What there was instead, for the end of the sentence.
        found: String,
    },
    /// A folder that was named holds no usable Postgres.
    #[error("{}: {why}; name the folder that holds `postgres` and `initdb`", folder.display())]
    BadBinaries {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The data was made by another major version than any that is installed.
    #[error(
        "{} was made by Postgres {made_by}, and this machine has {have}; install it with `apt-get install postgresql-{made_by}`, \
         or move the data with pg_upgrade",
        folder.display()
    )]
    Version {
        /// The data folder.
        folder: PathBuf,
        /// The major version that made it.
        made_by: u32,
        /// The one at hand.
        have: u32,
    },
    /// Postgres refuses to run as root, and there is nobody to run it as.
    #[error("{0}")]
    NoAccount(String),
    /// The file system said no.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried: "cannot create".
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A program of Postgres's failed.
    #[error("{program} failed: {why}")]
    Program {
        /// Its name.
        program: String,
        /// The last lines that it wrote.
        why: String,
    },
    /// The server did not come up.
    #[error("Postgres in {} did not start: {why}", folder.display())]
    Start {
        /// The data folder.
        folder: PathBuf,
        /// The end of its log.
        why: String,
    },
    /// Another server still holds the data folder.
    #[error("{} is in use by Postgres process {pid}, which did not stop; stop it with `kill -INT {pid}`", folder.display())]
    Busy {
        /// The data folder.
        folder: PathBuf,
        /// The process.
        pid: i32,
    },
}

impl Error {
    /// What it means to a caller.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::BadBinaries { .. } => Kind::Invalid,
            Self::Busy { .. } => Kind::Conflict,
            Self::NoBinaries { .. }
            | Self::Version { .. }
            | Self::NoAccount(_)
            | Self::File { .. }
            | Self::Program { .. }
            | Self::Start { .. } => Kind::Unavailable,
        }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
