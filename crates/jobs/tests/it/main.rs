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
mod ends;
mod fair;
mod harm;
mod host;
mod house;
mod kills;
mod lanes;
mod later;
mod life;
mod open;
mod open_schedules;
mod places;
mod schedules;
mod watched;
