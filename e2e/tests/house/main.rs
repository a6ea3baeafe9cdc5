//! The house rules, held by machine: floors, file sizes, opening words, names, links, metric labels.
//!
//! Not for: taste. What these tests refuse has a reason in `CONTRIBUTING.md`.

#![allow(clippy::expect_used, clippy::panic, reason = "a rule that cannot be checked is to fail, loudly")]

mod console;
mod deploy;
mod files;
mod floors;
mod fuzz;
mod papers;
mod tree;
