//! What a run is to do, complete: nothing is looked up once it has begun.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use crate::tenants::Rate;

/// When requests of a steady rate are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// At even distances.
    #[default]
    Even,
    /// At random, as from many people who know nothing of each other (exponential distances).
    Poisson,
}

/// What a tenant's requests look like.
#[derive(Clone, Debug)]
pub struct Target {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// All headers but those of the body; `host` is one of them.
    pub headers: HeaderMap,
    /// The same body each time.
    pub body: Bytes,
}

/// One tenant's part.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// As it is called in expectations and reports.
    pub name: String,
    /// How often.
    pub rate: Rate,
    /// What.
    pub target: Target,
    /// Connections that it may have at once.
    pub connections: usize,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the gateway listens.
    pub addr: SocketAddr,
    /// Who sends what.
    pub traffic: Vec<Traffic>,
    /// Distances between requests.
    pub arrivals: Arrivals,
    /// Not counted at the beginning.
    pub warmup: Duration,
    /// Counted after it.
    pub length: Duration,
    /// A request that takes longer, from when it was sent, is a failed one.
    pub timeout: Duration,
    /// Threads that send.
    pub threads: usize,
}
