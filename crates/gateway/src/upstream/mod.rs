//! The applications behind the gateway, as one worker reaches them: cells, their endpoints, connections kept open.
//!
//! A connection to upstream has no task of its own: whoever waits for its answer drives it, and so a request wakes one task, once for
//! each time that bytes come. Always: a connection is used by one request at a time and goes back only after a whole answer.

mod cell;
mod endpoint;
pub(crate) mod health;
mod link;
mod measure;
mod plain;
mod resumed;
mod spoken;
mod streaming;

pub(crate) use cell::{CellUpstream, Cells, Turn};
pub(crate) use endpoint::Endpoint;
pub(crate) use link::{Answer, Failure, Limit, Link};
pub(crate) use measure::{Measure, Measured};
pub(crate) use resumed::Resumed;
pub(crate) use streaming::{Source, Streaming};
