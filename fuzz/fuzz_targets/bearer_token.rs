//! People's tokens as anybody may write them, taken apart and judged as far as no key is needed; and JWKS as an issuer may write them.
//! `cargo +nightly fuzz run bearer_token`
#![no_main]

use insula_http::identity::takes_apart;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = takes_apart(data, 1_800_000_000);
});
