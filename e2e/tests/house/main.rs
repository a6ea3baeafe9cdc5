//! The house rules, held by machine: floors, file sizes, opening words, names, links, metric labels.
//!
//! Not for: taste. What these tests refuse has a reason in `CONTRIBUTING.md`.

mod files;
mod floors;
mod tree;
