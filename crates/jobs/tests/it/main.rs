//! The queue against a real Postgres.

#![allow(clippy::expect_used, clippy::panic)]

mod fair;
mod house;
mod kills;
mod life;
