//! The HTTP edge: from a client's request to the application of its tenant's cell, and back.
//!
//! For: HTTP/1.1, HTTP/2 and WebSocket in front of the cells. [`pipeline`] reads as the sentence of what happens to a request. Not for:
//! deciding who may do what (`insula-http` has the layers that do), or knowing tenants (`insula-catalog`).
//! Always: a request goes to the cell of exactly one active tenant or nowhere; a header that upstream trusts was written here; every wait has an
//! end; each core has its own runtime, listeners and upstream connections, so that cores share nothing on the way of a request but the catalog.

mod afterwards;
mod body;
pub mod config;
mod connection;
mod direct;
mod error;
mod fields;
mod forward;
mod gather;
mod headers;
mod keys;
pub mod listener;
mod moves;
pub mod pipeline;
mod probe;
mod refusal;
mod request_id;
mod run;
mod scratch;
mod senses;
mod sharing;
mod standing;
mod streams;
mod succession;
mod ticks;
mod tls;
mod upgrade;
mod upstream;
mod watch;
mod worker;

pub use config::Config;
pub use error::Error;
pub use listener::Listeners;
pub use run::{run, serve};
