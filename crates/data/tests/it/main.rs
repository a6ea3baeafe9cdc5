//! Data access against a real Postgres.
#![allow(clippy::expect_used, clippy::panic)]

mod bind;
mod cancel;
mod circuit;
mod fair;
mod gate;
mod house;
mod lane;
mod outage;
mod replica;
mod route;
mod scope;
mod tls;
mod usage;
