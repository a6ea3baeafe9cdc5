//! One id that follows a request through every log line and answer.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

/// The header that carries it, in and out.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const LONGEST: usize = 64;

/// The caller's id when it is a short, plain word, which also keeps it from forging log lines; otherwise a new one.
#[must_use]
pub fn of(headers: &HeaderMap) -> Arc<str> {
    headers
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (8..=LONGEST).contains(&id.len()))
        .filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
        .map_or_else(|| uuid::Uuid::now_v7().simple().to_string().into(), Arc::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_id_is_kept_and_anything_else_replaced() {
        let given = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, http::HeaderValue::from_bytes(id.as_bytes()).expect("a header value"));
            of(&headers) == Arc::<str>::from(id)
        };
        assert!(given("0192-abc.DEF_7"));
        for bad in ["", "short", "with space in it", "semi;colon;here", &"x".repeat(65), "ünïcode-id"] {
            assert!(!given(bad), "{bad:?}");
        }
    }
}
