//! The REST contract of the control plane, version 1: types, problem body, client.
//!
//! For: whoever serves the API (`insula-control`) and whoever calls it (the CLI, tests, other programs). Not for: the
//! handlers, or what they do. Always: request types refuse unknown fields; response types may grow; times are RFC 3339 in
//! UTC; ids are UUIDs; a secret appears in one answer once and has a field of its own that says when it was left out.

pub mod audit;
pub mod bundle;
pub mod catalog;
pub mod cell;
pub mod certificate;
pub mod client;
pub mod document;
pub mod domain;
pub mod error;
pub mod identity;
pub mod job;
pub mod key;
pub mod operation;
pub mod page;
pub mod plan;
pub mod problem;
pub mod schedule;
pub mod status;
pub mod tenant;
pub mod usage;
pub mod webhook;
pub mod worker;

pub use client::Client;
pub use error::Error;
pub use page::Page;
pub use problem::{FieldError, Problem};
