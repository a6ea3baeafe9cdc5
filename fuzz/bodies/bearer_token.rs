//! People's tokens as anybody may write them, taken apart and judged as far as no key is needed; and JWKS as an issuer may write them.

use insula_http::identity::takes_apart;

/// # Panics
/// When what cannot be a token is taken for one.
pub(crate) fn run(data: &[u8]) {
    let is_one = takes_apart(data, 1_800_000_000);
    assert!(!is_one || data.iter().filter(|byte| **byte == b'.').count() == 2, "{:?}", String::from_utf8_lossy(data));
}
