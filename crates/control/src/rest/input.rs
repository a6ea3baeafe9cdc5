//! What a request says: JSON bodies, queries, paths, conditions.
//!
//! Always: an input that is refused names the field at fault; unknown fields are refused; no text holds characters that
//! Postgres cannot store or that people cannot see.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt as _;
use insula_core::Kind;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;

/// Largest body of a call, bytes.
pub(super) const MAX_BODY: usize = 1 << 20;
/// Largest bundle, bytes.
pub(super) const MAX_BUNDLE: usize = 16 << 20;
/// How much of a refused body is read and thrown away, so that a caller that writes first and reads then gets to read.
const DRAIN: usize = 64 << 20;

/// A JSON body of at most `MAX` bytes.
pub(super) struct Json<T, const MAX: usize = MAX_BODY>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for Json<T, MAX> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let is_json = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|text| {
            let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
        });
        if !is_json {
            return Err(Failure::new(Kind::Invalid, "send the body with Content-Type: application/json")
                .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let bytes = read_body(request, MAX).await?;
        parse(&bytes).map(Self)
    }
}

/// Reads a body of at most `max` bytes.
pub(super) async fn read_body(request: Request, max: usize) -> Result<Bytes, Failure> {
    let too_large = || Failure::new(Kind::TooLarge, format!("the body may have {max} bytes at most"));
    if announced(request.headers()).is_some_and(|length| length > DRAIN) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut seen = 0;
    let mut stream = request.into_body().into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Failure::new(Kind::Invalid, "the body broke off").with_status(StatusCode::BAD_REQUEST))?;
        seen += chunk.len();
        if seen > DRAIN {
            break;
        }
        if seen <= max {
            bytes.extend_from_slice(&chunk);
        }
    }
    if seen > max {
        return Err(too_large());
    }
    Ok(bytes.into())
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| {
        // serde_json's own words: a position, and never the text itself.
        Failure::new(Kind::Invalid, format!("the body is not JSON: {e}")).with_status(StatusCode::BAD_REQUEST)
    })?;
    printable(&value, &mut String::new())?;
    serde_path_to_error::deserialize(value).map_err(|e| {
        let (path, inner) = (e.path().to_string(), e.into_inner().to_string());
        Failure::field(field_of(&path, &inner), inner)
    })
}

/// The field at fault: where serde stopped, or the one that it names.
fn field_of(path: &str, message: &str) -> String {
    let named = ["unknown field `", "missing field `"].iter().find_map(|start| message.strip_prefix(start)?.split('`').next());
    match (path, named) {
        ("." | "" | "?", Some(field)) => field.to_owned(),
        (path, Some(field)) if path == field || path.ends_with(&format!(".{field}")) => path.to_owned(),
        (path, Some(field)) => format!("{path}.{field}"),
        (path, None) => path.to_owned(),
    }
}

/// Refuses characters that Postgres cannot store (NUL), that control terminals, or that reorder what people read.
fn printable(value: &Value, path: &mut String) -> Result<(), Failure> {
    let length = path.len();
    match value {
        Value::String(text) => match text.chars().find(|c| forbidden(*c)) {
            Some(c) => Err(Failure::field(path.clone(), format!("may not hold the character U+{:04X}", u32::from(c)))),
            None => Ok(()),
        },
        Value::Array(items) => items.iter().enumerate().try_for_each(|(i, item)| {
            path.push_str(&format!("[{i}]"));
            let outcome = printable(item, path);
            path.truncate(length);
            outcome
        }),
        Value::Object(fields) => fields.iter().try_for_each(|(name, item)| {
            if let Some(c) = name.chars().find(|c| forbidden(*c)) {
                let at = if path.is_empty() { "body" } else { path.as_str() };
                return Err(Failure::field(at, format!("a field's name may not hold the character U+{:04X}", u32::from(c))));
            }
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            let outcome = printable(item, path);
            path.truncate(length);
            outcome
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn forbidden(c: char) -> bool {
    let invisible = matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FFF9}'..='\u{FFFB}');
    let nobody = u32::from(c) & 0xFFFE == 0xFFFE || matches!(c, '\u{FDD0}'..='\u{FDEF}');
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || invisible || nobody
}

/// Parameters after the `?`.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if name.chars().chain(value.chars()).any(forbidden) {
                return Err(Failure::field(name.replace(forbidden, "?"), "may not hold control characters"));
            }
        }
        let pairs = serde_urlencoded::Deserializer::new(url::form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs).map(Self).map_err(|e| {
            let (path, inner) = (e.path().to_string(), e.into_inner().to_string());
            Failure::field(field_of(&path, &inner), inner)
        })
    }
}

/// The variable parts of a path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let parsed = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        // A part that cannot be an id or a name is the name of nothing.
        parsed.map(|path| Self(path.0)).map_err(|_| Failure::new(Kind::NotFound, "there is nothing of this name"))
    }
}

/// The version that a conditional change names: `If-Match: "7"`; `*` is any.
pub(super) struct IfMatch(pub(super) Option<i64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Some(header) = parts.headers.get(IF_MATCH) else {
            let detail = "read it first, and send its ETag as If-Match, so that nobody else's change is lost";
            return Err(Failure::new(Kind::Precondition, detail).with_status(StatusCode::PRECONDITION_REQUIRED));
        };
        let text = header.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        if text.starts_with("W/\"") {
            // A weak one never matches (RFC 9110, 13.1.1).
            return Err(Failure::new(Kind::Precondition, "a weak ETag matches nothing: send the ETag as it was answered"));
        }
        let version = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| t.parse().ok());
        match version {
            Some(version) => Ok(Self(Some(version))),
            None => Err(Failure::field("If-Match", "an ETag as it was answered (\"7\"), or *")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> String {
        let failure = parse::<insula_api::tenant::CreateTenant>(body.as_bytes()).expect_err("refused");
        let text = format!("{failure:?}");
        text.split("field: \"").nth(1).map_or_else(|| "-".to_owned(), |t| t.split('"').next().unwrap_or_default().to_owned())
    }

    #[test]
    fn the_field_at_fault_is_named() {
        assert_eq!(fault(r#"{"slug":"a_b","plan":"x"}"#), "slug");
        assert_eq!(fault(r#"{"slug":"acme"}"#), "plan");
        assert_eq!(fault(r#"{"slug":"acme","plan":"x","colour":1}"#), "colour");
        assert_eq!(fault(r#"{"slug":"acme","plan":"x","settings":{"colour":"1"}}"#), "settings.colour");
        assert_eq!(fault("{\"slug\":\"acme\",\"plan\":\"x\",\"name\":\"a\\u0000b\"}"), "name");
        assert_eq!(fault("{\"slug\":\"acme\",\"plan\":\"x\",\"labels\":[\"a\",\"\\u202eb\"]}"), "labels[1]");
        assert_eq!(fault(r#"{"slug":"acme","plan":"x","isolation":"none"}"#), "isolation");
        assert_eq!(fault(r#"{"slug":"acme","plan":"x","name":"\ud800"}"#), "-");
        assert_eq!(fault("["), "-");
    }
}
