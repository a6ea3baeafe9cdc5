//! What the end-to-end tests share: a running Insula, as its users have it (the built binaries, started by `insula up` on an
//! empty folder), and the attacks.
//!
//! For: tests that need the whole (isolation under load, failure). Not for: what one crate can show alone.
//! Always: every process a harness starts ends with it, also when the test fails; ports are free ones; folders temporary.

pub mod attack;
pub mod client;
pub mod secrets;
pub mod up;
