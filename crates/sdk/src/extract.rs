//! Bodies and queries, read so that a refusal names the field.
//!
//! Always: 400 for what is not the format at all, 413 for too much, 415 for another format, 422 with the field for a value
//! that does not fit. No text with a NUL gets through: Postgres could not store it.

use std::borrow::Cow;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError};
use insula_core::Kind;
use insula_http::Problem;
use insula_http::resolve::{BodyLimit, too_large};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// A JSON body, in and out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// The query of the target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

/// A form's body (`application/x-www-form-urlencoded`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Form<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;
    async fn from_request(request: Request, _: &S) -> Result<Self> {
        must_be(request.headers(), |kind| kind == "application/json" || kind.ends_with("+json"), "application/json")?;
        from_json(&body(request).await?).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Error;
    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let form = "application/x-www-form-urlencoded";
        must_be(request.headers(), |kind| kind == form, form)?;
        from_pairs(&body(request).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        from_pairs(parts.uri.query().unwrap_or_default().as_bytes()).map(Self)
    }
}

fn must_be(headers: &HeaderMap, accepted: impl Fn(&str) -> bool, name: &str) -> Result<()> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if accepted(&kind) {
        return Ok(());
    }
    let problem = Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE).detail(format!("Send the body as {name}."));
    Err(Error::problem(Kind::Invalid, problem))
}

async fn body(request: Request) -> Result<bytes::Bytes> {
    let limit = request.extensions().get::<BodyLimit>().map_or(u64::MAX, |limit| limit.0);
    match request.into_body().collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if is_too_large(&error) => Err(Error::problem(Kind::TooLarge, too_large(limit))),
        Err(_) => Err(Error::problem(Kind::Invalid, Problem::malformed("The body broke off."))),
    }
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Reads a value from JSON.
fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    // A NUL can only come as an escape: a bare one is no JSON.
    if contains(bytes, b"\\u0000")
        && let Ok(value) = serde_json::from_slice::<Value>(bytes)
        && let Some(field) = nul_in(&value, String::new())
    {
        return Err(nul(field));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|fault| {
        let field = fault.path().to_string();
        let fault = fault.into_inner();
        match fault.classify() {
            serde_json::error::Category::Data => refused(field, &fault.to_string()),
            _ => Error::problem(Kind::Invalid, Problem::malformed(format!("The body is not JSON: {fault}."))),
        }
    })?;
    reader.end().map_err(|fault| Error::problem(Kind::Invalid, Problem::malformed(format!("The body is not JSON: {fault}."))))?;
    Ok(value)
}

fn from_pairs<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let pairs = || url::form_urlencoded::parse(bytes);
    let holds_nul = |text: &Cow<'_, str>| text.contains('\0');
    if let Some((name, _)) = pairs().find(|(name, value)| holds_nul(name) || holds_nul(value)) {
        return Err(nul(name.replace('\0', "\u{fffd}")));
    }
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs())).map_err(|fault| {
        let field = fault.path().to_string();
        refused(field, &fault.into_inner().to_string())
    })
}

/// `fault` is serde's: it speaks of the client's own text and of our field names, which the contract publishes anyway.
fn refused(field: String, fault: &str) -> Error {
    let fault = fault.split(" at line ").next().unwrap_or(fault);
    // A missing or unknown field is named by the message; the path leads to the object around it.
    let named = ["missing field `", "unknown field `"].iter().find_map(|start| fault.strip_prefix(start)?.split('`').next());
    let field = match (field.as_str(), named) {
        ("." | "", Some(name)) => name.to_owned(),
        (path, Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
        ("." | "", None) => "body".to_owned(),
        _ => field,
    };
    Error::field(field, fault)
}

fn nul(field: String) -> Error {
    Error::field(field, "holds a NUL character (U+0000), which cannot be stored")
}

fn nul_in(value: &Value, path: String) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then_some(path),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| nul_in(item, format!("{path}[{i}]"))),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let clean = name.replace('\0', "\u{fffd}");
            let path = if path.is_empty() { clean } else { format!("{path}.{clean}") };
            if name.contains('\0') { Some(path) } else { nul_in(value, path) }
        }),
        _ => None,
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Note {
        title: String,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default)]
        page: u8,
    }

    fn fault(body: &str) -> (u16, String) {
        let problem = from_json::<Note>(body.as_bytes()).expect_err(body).into_problem();
        (problem.body().status, problem.body().errors.first().map(|e| e.field.clone()).unwrap_or_default())
    }

    #[test]
    fn a_refusal_names_the_field() {
        assert_eq!(fault("{}"), (422, "title".into()));
        assert_eq!(fault(r#"{"title": 7}"#), (422, "title".into()));
        assert_eq!(fault(r#"{"title":"x","tags":["a",1]}"#), (422, "tags[1]".into()));
        assert_eq!(fault(r#"{"title":"x","colour":1}"#), (422, "colour".into()));
        assert_eq!(fault(r#"{"title":"x","page":300}"#), (422, "page".into()));
        assert_eq!(fault(r#"{"title":"a\u0000b"}"#), (422, "title".into()));
        assert_eq!(fault(r#"{"title":"a","tags":["x","\u0000"]}"#), (422, "tags[1]".into()));
        assert_eq!(fault("[]").0, 422);
        assert_eq!(fault("7"), (422, "body".into()));
    }

    #[test]
    fn what_is_not_json_is_400() {
        for bad in ["", "{", "nope", r#"{"title":"x"} {}"#, r#"{"title":"\ud800"}"#] {
            assert_eq!(fault(bad), (400, String::new()), "{bad:?}");
        }
        assert!(from_json::<Note>(b"{\"title\":\"\xff\"}").is_err());
        assert!(from_json::<Note>(br#"{"title":"a backslash and \\u0000 as text"}"#).is_ok());
    }

    #[test]
    fn queries_are_held_to_the_same() {
        let fault = |query: &str| {
            let problem = from_pairs::<Note>(query.as_bytes()).expect_err(query).into_problem();
            (problem.body().status, problem.body().errors[0].field.clone())
        };
        assert_eq!(fault("page=1"), (422, "title".into()));
        assert_eq!(fault("title=x&page=x"), (422, "page".into()));
        assert_eq!(fault("title=a%00b"), (422, "title".into()));
        assert_eq!(from_pairs::<Note>(b"title=a+b&page=2").expect("reads").title, "a b");
    }
}
