//! Tenants with the same data shapes, in every isolation mode, at once, for a minute: no row ever crosses, no context ever
//! changes; from outside by requests, and from inside by tasks that hop from thread to thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod requests;
mod tasks;

/// A minute by default, as the promise is worded; `INSULA_E2E_SECONDS` shortens it while one works on the test.
fn length() -> std::time::Duration {
    std::time::Duration::from_secs(std::env::var("INSULA_E2E_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60))
}
