//! Tenant contexts as anybody may write them: refused, never believed, never a panic.

use insula_core::token::{self, Compact, KeySet};

/// # Panics
/// When a forged token is believed.
pub(crate) fn run(data: &[u8]) {
    let keys = KeySet::new([[7; 32]]);
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(token::verify(text, &keys, token::GATEWAY, "insula-app:main", 1_800_000_000).is_err(), "believed: {text:?}");
        let _ = token::claimed(text);
        let _ = Compact::split(text);
        let _ = KeySet::from_jwks(text);
    }
    let _ = token::unique(data);
}
