//! AcmeDocs end to end, in process, on a real Postgres, in every isolation mode.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "tests stand outside of any tenant")]

mod alone;
mod api;
mod denial;
mod digests;
mod exports;
mod house;
mod import;
mod input;
mod login;
mod pages;
mod users;
mod webhooks;
mod words;
