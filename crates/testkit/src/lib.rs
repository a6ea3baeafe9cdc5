//! Real servers for tests.
//!
//! For: a private Postgres per test binary, databases in it, a whole cell with tenants, a NATS, and a wire that can be cut. Not for
//! production. Always: what a test starts dies with the test's process, however that ends, and its files go too.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot have its server is to fail at once, loudly")]

mod cell;
mod nats;
mod proxy;
mod server;
mod tls;

pub use cell::{TestCell, TestTenant};
/// The words in which tests ask for tenants.
pub use insula_core::{Isolation, TenantState};
pub use nats::TestNats;
pub use proxy::{CutProxy, Wire};
pub use server::{ADMIN_ROLE, TestServer, durable_server, own_server, second_server, server};
pub use tls::Authority;
