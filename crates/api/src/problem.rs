//! The body of every answer that is not a success: RFC 9457, "Problem Details for HTTP APIs".

use insula_core::Kind;
use serde::{Deserialize, Serialize};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

const TYPE_BASE: &str = "https://insula.dev/problems/";

/// What went wrong, for a program and for a person. Holds nothing of the inside: no SQL, no host, no stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Names the kind of problem; the last part is stable: `invalid`, `not-found`, `conflict`, ...
    #[serde(rename = "type")]
    #[schema(example = "https://insula.dev/problems/invalid")]
    pub kind: String,
    /// One line for people, the same for every problem of this type.
    pub title: String,
    /// HTTP status code.
    #[schema(example = 422)]
    pub status: u16,
    /// What went wrong this time, and what to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The path that was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Which fields are wrong, when fields are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Finds this request in the log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Path of the field in the body (`admin_email`, `tier.weight`) or name of the query parameter.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub detail: String,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{TYPE_BASE}{}", kind.name()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            instance: String::new(),
            errors: Vec::new(),
            request_id: String::new(),
        }
    }

    /// A problem with one field.
    #[must_use]
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let mut problem = Self::new(Kind::Invalid, detail.clone());
        problem.errors.push(FieldError { field: field.into(), detail });
        problem
    }

    /// The kind that the type names; by status when the type is another party's.
    #[must_use]
    pub fn error_kind(&self) -> Kind {
        self.kind.strip_prefix(TYPE_BASE).and_then(kind_of_name).unwrap_or_else(|| kind_of_status(self.status))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is said of one field alone may leave out which: "a time in the future".
        let unnamed = |e: &&FieldError| e.detail == self.detail && !self.detail.contains(&e.field);
        if let Some(error) = self.errors.iter().find(unnamed) {
            write!(f, "{}: ", error.field)?;
        }
        f.write_str(if self.detail.is_empty() { &self.title } else { &self.detail })?;
        for error in self.errors.iter().filter(|e| e.detail != self.detail) {
            write!(f, "\n  {}: {}", error.field, error.detail)?;
        }
        Ok(())
    }
}

const KINDS: [Kind; 15] = [
    Kind::Invalid,
    Kind::Unauthenticated,
    Kind::Denied,
    Kind::NotFound,
    Kind::Conflict,
    Kind::Precondition,
    Kind::TooLarge,
    Kind::Suspended,
    Kind::NoTenant,
    Kind::Moved,
    Kind::Limited,
    Kind::Unavailable,
    Kind::Timeout,
    Kind::Security,
    Kind::Internal,
];

/// The kind of this name.
#[must_use]
pub fn kind_of_name(name: &str) -> Option<Kind> {
    KINDS.into_iter().find(|k| k.name() == name)
}

/// The kind that a bare status stands for.
#[must_use]
pub fn kind_of_status(status: u16) -> Kind {
    match status {
        401 => Kind::Unauthenticated,
        403 => Kind::Denied,
        404 => Kind::NotFound,
        408 | 504 => Kind::Timeout,
        409 => Kind::Conflict,
        412 => Kind::Precondition,
        413 => Kind::TooLarge,
        429 => Kind::Limited,
        502 | 503 => Kind::Unavailable,
        400..=499 => Kind::Invalid,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in KINDS {
            let text = serde_json::to_string(&Problem::new(kind, "why")).expect("serializes");
            let back: Problem = serde_json::from_str(&text).expect("parses");
            assert_eq!((back.error_kind(), back.status), (kind, kind.status()));
        }
    }

    #[test]
    fn fields_are_printed_once() {
        let mut problem = Problem::field("slug", "too short");
        assert_eq!(problem.to_string(), "slug: too short");
        problem.errors.push(FieldError { field: "name".into(), detail: "empty".into() });
        assert_eq!(problem.to_string(), "slug: too short\n  name: empty");
        assert_eq!(Problem::field("slug", "a slug has no dots").to_string(), "a slug has no dots");
    }
}
