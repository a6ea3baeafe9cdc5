//! Two voices: what the client may read is written on purpose, everything else stays in our log.
//!
//! Always: an error that came up through `?` reaches a response as its kind and general words, never with its text.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use insula_core::Kind;
use insula_core::scope::NoTenant;
use insula_http::Problem;
use insula_http::admit::OVERLOADED;
use insula_jobs::JobError;

use crate::objects::ObjectError;

/// What a handler answers when it has no good answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An application's error. `?` turns any error into one that the client sees in general words only; [`Error::public`] and
/// [`Error::field`] speak to the client.
pub struct Error(Box<Voice>);

#[expect(clippy::large_enum_variant, reason = "its owner has boxed it")]
enum Voice {
    Public {
        kind: Kind,
        problem: Problem,
    },
    Internal(Box<dyn StdError + Send + Sync>),
    /// An internal one, of which others were told as well.
    Shared(Arc<Error>),
}

impl Error {
    /// For the client to read.
    #[must_use]
    pub fn public(kind: Kind, text: impl Into<String>) -> Self {
        Self(Box::new(Voice::Public { kind, problem: Problem::new(kind).detail(text) }))
    }

    /// A field that is wrong (422): its path and what would be right.
    #[must_use]
    pub fn field(field: impl Into<String>, text: impl Into<String>) -> Self {
        let (field, text) = (field.into(), text.into());
        let problem = Problem::new(Kind::Invalid).detail(format!("{field}: {text}")).field(field, text);
        Self::problem(Kind::Invalid, problem)
    }

    /// There is no such thing, or none that this caller may know of.
    #[must_use]
    pub fn not_found() -> Self {
        Self::problem(Kind::NotFound, Problem::new(Kind::NotFound))
    }

    /// A problem made by hand.
    #[must_use]
    pub fn problem(kind: Kind, problem: Problem) -> Self {
        Self(Box::new(Voice::Public { kind, problem }))
    }

    /// For our log alone.
    #[must_use]
    pub fn internal(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Box::new(Voice::Internal(error.into())))
    }

    /// What a load for many failed with. Words for the client go to all of them; the rest is each one's kind, and logged once.
    pub(crate) fn shared(error: Arc<Self>) -> Self {
        match Arc::try_unwrap(error) {
            Ok(error) => error,
            Err(shared) => Self(Box::new(match &*shared.0 {
                Voice::Public { kind, problem } => Voice::Public { kind: *kind, problem: problem.clone() },
                Voice::Internal(_) | Voice::Shared(_) => Voice::Shared(shared),
            })),
        }
    }

    /// What went wrong, as a caller would act on it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &*self.0 {
            Voice::Public { kind, .. } => *kind,
            Voice::Internal(error) => kind_of(&**error),
            Voice::Shared(error) => error.kind(),
        }
    }

    /// Replaces an error of one kind by words for the client; leaves others alone.
    #[must_use]
    pub fn when(self, kind: Kind, say: impl FnOnce() -> Self) -> Self {
        if self.kind() == kind { say() } else { self }
    }

    /// The statement's own error, when the database gave one.
    #[must_use]
    pub fn as_sql(&self) -> Option<&sqlx::Error> {
        match &*self.0 {
            Voice::Public { .. } => None,
            Voice::Internal(error) => sql_of(&**error),
            Voice::Shared(error) => error.as_sql(),
        }
    }

    /// The answer. An internal error is logged here, once.
    #[must_use]
    pub fn into_problem(self) -> Problem {
        let kind = self.kind();
        match *self.0 {
            Voice::Public { problem, .. } => problem,
            Voice::Internal(error) => {
                log(kind, &*error);
                in_general(kind, &*error)
            }
            // Whoever is the last to let go of it logs it.
            Voice::Shared(error) => match Arc::try_unwrap(error) {
                Ok(error) => error.into_problem(),
                Err(shared) => match &*shared.0 {
                    Voice::Internal(error) => in_general(kind, &**error),
                    _ => Problem::new(kind),
                },
            },
        }
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self::internal(error)
    }
}

/// So that a job may call what handlers call. What it says goes to the dead letter, for the operator.
impl From<Error> for JobError {
    fn from(error: Error) -> Self {
        match error.kind() {
            // The tenant may not work now; that is not the job's fault.
            Kind::Suspended | Kind::Moved => Self::Later { delay: Duration::from_secs(5), reason: error.to_string() },
            _ => Self::Retry(error.to_string()),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.into_problem().into_response()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Voice::Public { problem, .. } => problem.body().fmt(f),
            Voice::Internal(error) => error.fmt(f),
            Voice::Shared(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Voice::Public { kind, problem } => f.debug_tuple("Public").field(kind).field(problem.body()).finish(),
            Voice::Internal(error) => f.debug_tuple("Internal").field(error).finish(),
            Voice::Shared(error) => error.fmt(f),
        }
    }
}

/// What the client is told of an internal error.
fn in_general(kind: Kind, error: &(dyn StdError + 'static)) -> Problem {
    let problem = Problem::new(kind);
    let problem = match data_of(error).and_then(insula_data::Error::retry_after) {
        Some(after) => problem.retry_after(after),
        None => problem,
    };
    // Others' work holds all connections: the one trouble with the database that is the application's own, and a reason to be sent less.
    let problem = match data_of(error) {
        Some(insula_data::Error::Busy { .. }) => problem.header(OVERLOADED, HeaderValue::from_static("1")),
        _ => problem,
    };
    match sql_of(error).and_then(words) {
        Some(text) => problem.detail(text),
        None => problem,
    }
}

/// The transaction's error, also inside one of jobs or events.
fn data_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a insula_data::Error> {
    match (error.downcast_ref::<insula_events::Error>(), error.downcast_ref::<insula_jobs::Error>()) {
        (Some(insula_events::Error::Data(error)), _) | (_, Some(insula_jobs::Error::Data(error))) => Some(error),
        _ => error.downcast_ref::<insula_data::Error>(),
    }
}

fn sql_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a sqlx::Error> {
    match data_of(error) {
        Some(insula_data::Error::Sql(error)) => Some(error),
        Some(_) => None,
        None => match (error.downcast_ref::<insula_events::Error>(), error.downcast_ref::<insula_jobs::Error>()) {
            (Some(insula_events::Error::Sql(error)), _) | (_, Some(insula_jobs::Error::Sql(error))) => Some(error),
            _ => error.downcast_ref::<sqlx::Error>(),
        },
    }
}

fn kind_of(error: &(dyn StdError + 'static)) -> Kind {
    if let Some(error) = sql_of(error) {
        return sql_kind(error);
    }
    match data_of(error) {
        Some(error) => error.kind(),
        None if error.is::<ObjectError>() => error.downcast_ref().map_or(Kind::Internal, ObjectError::kind),
        None if error.is::<NoTenant>() => Kind::NoTenant,
        None => {
            let events = error.downcast_ref::<insula_events::Error>().map(insula_events::Error::kind);
            let jobs = || error.downcast_ref::<insula_jobs::Error>().map(insula_jobs::Error::kind);
            events.or_else(jobs).unwrap_or(Kind::Internal)
        }
    }
}

/// A statement's error as the application's client would act on it: its own bad values are its own fault.
fn sql_kind(error: &sqlx::Error) -> Kind {
    match error.as_database_error().and_then(|error| error.code()).as_deref() {
        // Values: check and not-null violations, NUL and other text that cannot be, numbers and dates that do not fit, a
        // text beyond what full text search takes.
        Some("23514" | "23502" | "22001" | "22003" | "22007" | "22008" | "22021" | "22023" | "22P02" | "22P05" | "54000") => {
            Kind::Invalid
        }
        Some("23505" | "23P01" | "23503") => Kind::Conflict,
        _ => insula_data::sql_kind(error),
    }
}

fn words(error: &sqlx::Error) -> Option<&'static str> {
    Some(match error.as_database_error()?.code()?.as_ref() {
        "23505" | "23P01" => "There is one already.",
        "23503" => "Something else still refers to it, or what it refers to is gone.",
        "22021" | "22P05" => "The text holds a character that cannot be stored (NUL).",
        "54000" => "The text is too long, or there are too many already.",
        "23514" | "23502" | "22001" | "22003" | "22007" | "22008" | "22023" | "22P02" => "A value is out of its range.",
        _ => return None,
    })
}

fn log(kind: Kind, error: &(dyn StdError + 'static)) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match kind {
        Kind::Security => tracing::error!(target: "insula::security", error = text, "refused at the boundary"),
        Kind::Internal => tracing::error!(error = text, "internal error"),
        // A full disk, a server that is away: whoever runs this wants the reason, which the client is not told.
        Kind::Unavailable => tracing::warn!(error = text, "the request could not be served now"),
        _ => tracing::debug!(error = text, kind = kind.name(), "request failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing() -> Result<()> {
        let number: i64 = "postgres://user:secret@host".parse()?;
        Err(Error::public(Kind::Conflict, number.to_string()))
    }

    #[test]
    fn an_internal_error_says_nothing() {
        let error = Error::internal("postgres://user:secret@host is down");
        assert_eq!(error.kind(), Kind::Internal);
        let body = error.into_problem().body().clone();
        assert_eq!((body.status, body.detail.as_str()), (500, ""));
        assert_eq!(failing().expect_err("fails").into_problem().body().status, 500);
    }

    #[test]
    fn a_public_error_says_what_it_was_given() {
        let body = Error::field("tags[2]", "is too long").into_problem().body().clone();
        assert_eq!((body.status, body.detail.as_str()), (422, "tags[2]: is too long"));
        assert_eq!(body.errors[0].field, "tags[2]");
        let replaced = Error::from(sqlx::Error::RowNotFound).when(Kind::NotFound, || Error::public(Kind::Denied, "no"));
        assert_eq!(replaced.kind(), Kind::Denied);
    }

    #[test]
    fn only_a_lack_of_connections_is_the_application_s_own_trouble() {
        let (cell, retry_after) = ("main".parse::<insula_core::CellName>().expect("a name"), Duration::from_secs(1));
        let open = insula_data::Error::CircuitOpen { cell: cell.clone(), database: "d1".into(), retry_after };
        let away = insula_data::Error::Unavailable { cell, reason: "away".to_owned() };
        let busy = || insula_data::Error::Busy { retry_after };
        for (error, is_own) in
            [(open.into(), false), (away.into(), false), (busy().into(), true), (insula_jobs::Error::Data(busy()).into(), true)]
        {
            let answer = Error::into_problem(error).into_response();
            assert_eq!((answer.status().as_u16(), answer.headers().contains_key(OVERLOADED)), (503, is_own), "{answer:?}");
        }
    }

    #[test]
    fn known_errors_have_their_kind() {
        assert_eq!(Error::from(sqlx::Error::RowNotFound).kind(), Kind::NotFound);
        assert_eq!(Error::from(NoTenant).kind(), Kind::NoTenant);
        let data = || insula_data::Error::Busy { retry_after: std::time::Duration::from_secs(1) };
        assert_eq!(Error::from(insula_jobs::Error::Data(data())).kind(), Kind::Unavailable);
        assert_eq!(Error::from(insula_events::Error::Data(data())).kind(), Kind::Unavailable);
        assert_eq!(Error::from(insula_events::Error::Sql(sqlx::Error::RowNotFound)).kind(), Kind::NotFound);
        assert_eq!(Error::from(insula_events::Error::Topic("X".to_owned())).kind(), Kind::Invalid);
        assert_eq!(Error::from(insula_data::Error::Sql(sqlx::Error::RowNotFound)).kind(), Kind::NotFound);
    }
}
