//! Tests of the catalog against real Postgres servers, and of what readers see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod backend;
mod concurrency;
mod contract;
mod disk;
mod identity;
mod memory;
mod outage;
mod random;
mod reads;
mod schema;
