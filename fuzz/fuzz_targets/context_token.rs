//! See `bodies/context_token.rs`.
#![no_main]

#[path = "../bodies/context_token.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
