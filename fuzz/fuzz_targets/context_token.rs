//! Tenant contexts as anybody may write them: refused, never believed, never a panic. `cargo +nightly fuzz run context_token`
#![no_main]

use insula_core::token::{self, Compact, KeySet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let keys = KeySet::new([[7; 32]]);
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(token::verify(text, &keys, token::GATEWAY, "insula-app:main", 1_800_000_000).is_err());
        let _ = token::claimed(text);
        let _ = Compact::split(text);
        let _ = KeySet::from_jwks(text);
    }
    let _ = token::unique(data);
});
