//! The queue against a real Postgres.

#![allow(clippy::expect_used, clippy::panic)]

mod alone;
mod attacks;
mod away;
mod bad;
mod breaker;
mod caps;
mod clock;
mod cost;
mod fair;
mod host;
mod house;
mod kills;
mod lanes;
mod life;
mod open;
mod schedules;
