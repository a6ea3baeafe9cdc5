//! Events against a real Postgres and a real NATS.

#![allow(clippy::expect_used, clippy::panic)]

mod attacks;
mod bus;
mod consumer;
mod fair;
mod house;
mod open;
mod publish;
mod relay;
mod secure;
mod troubles;
mod visits;
mod webhook;
