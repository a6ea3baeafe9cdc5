//! A gateway in this process, before real sockets on both sides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod attacks;
mod counted;
mod guide;
mod harm;
mod health;
mod http2;
mod proxy;
mod ready;
mod rules;
mod sharing;
mod stage;
mod succession;
mod timeouts;
mod tls;
mod versions;
mod week;
