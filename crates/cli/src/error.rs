//! What an operator is told when a command fails: what is wrong, and what to do about it.

use insula_core::Kind;

/// A failed command. Prints as one message; [`Error::help`] is printed on a line of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A fault with a kind, in words for the operator. Never holds a secret.
    #[error("{message}")]
    Failed {
        /// Decides the exit code.
        kind: Kind,
        /// What is wrong.
        message: String,
        /// What to do about it; empty when the message says it all.
        help: String,
    },
    /// A call of the control plane failed.
    #[error("{0}")]
    Api(#[from] insula_api::Error),
    /// The terminal, pipe or file that results go to is gone.
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
}

impl Error {
    /// A fault with what to do about it.
    pub(crate) fn new(kind: Kind, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Failed { kind, message: message.into(), help: help.into() }
    }

    /// What went wrong, as a caller would act on it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Failed { kind, .. } => *kind,
            Self::Api(error) => error.kind(),
            Self::Output(_) => Kind::Internal,
        }
    }

    /// What to do about it.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::Failed { help, .. } => help.clone(),
            Self::Api(error) => api_help(error).to_owned(),
            Self::Output(_) => String::new(),
        }
    }

    /// Whether the reader of our output went away: then there is nobody to tell.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

fn api_help(error: &insula_api::Error) -> &'static str {
    match error {
        insula_api::Error::Unreachable { .. } => "is it running? `insula up` starts everything on this machine",
        insula_api::Error::Problem(problem) => match problem.error_kind() {
            Kind::Unauthenticated => "the key is not (or no longer) known there: set INSULA_KEY to one that is",
            Kind::Denied => "use a key of a wider scope: `insula key create NAME --scope ...` makes one",
            Kind::Precondition => "somebody else was faster: look at it again and repeat the change",
            _ => "",
        },
        _ => "",
    }
}

impl From<insula_cluster::Error> for Error {
    fn from(error: insula_cluster::Error) -> Self {
        Self::new(error.kind(), error.to_string(), "")
    }
}
