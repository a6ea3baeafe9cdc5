//! Forms that only our own pages can send (CSRF).
//!
//! Two locks: the browser's word where a request comes from (`Sec-Fetch-Site`, else `Origin`), and for sessions a secret in
//! the form that is derived from the cookie, which another site can neither read nor guess. `SameSite=Lax` is a third.

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use insula::{Error, Kind, Result};

use crate::sessions::Token;

/// # Errors
/// `Denied` when another site sent it.
pub(crate) fn same_site(headers: &HeaderMap) -> Result<()> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let ours = match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) == text(HOST.as_str()),
        // Not a browser: it has no cookies that somebody else could ride on.
        (None, None) => true,
    };
    if ours { Ok(()) } else { Err(foreign()) }
}

/// # Errors
/// `Denied` when the form is not from a page of this session.
pub(crate) fn own_form(headers: &HeaderMap, token: Option<&Token>, form: &str) -> Result<()> {
    same_site(headers)?;
    let expected = token.ok_or_else(crate::sessions::unknown)?.form_secret();
    aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), form.as_bytes()).map_err(|_| foreign())
}

fn foreign() -> Error {
    Error::public(Kind::Denied, "This form was not sent from a page of ours. Reload the page and try again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&'static str, &'static str)]) -> bool {
        let headers = pairs.iter().map(|(k, v)| (k.parse().expect("a name"), v.parse().expect("a value"))).collect();
        same_site(&headers).is_ok()
    }

    #[test]
    fn only_our_own_pages_send_forms() {
        assert!(from(&[("sec-fetch-site", "same-origin"), ("origin", "http://acme.localhost")]));
        assert!(from(&[("origin", "http://acme.localhost:8080"), ("host", "acme.localhost:8080")]));
        assert!(from(&[]));
        for foreign in ["cross-site", "same-site", ""] {
            assert!(!from(&[("sec-fetch-site", foreign), ("host", "acme.localhost")]), "{foreign}");
        }
        for origin in ["http://globex.localhost:8080", "null", "http://acme.localhost.evil:8080"] {
            assert!(!from(&[("origin", origin), ("host", "acme.localhost:8080")]), "{origin}");
        }
    }
}
