//! What each tenant used: counters in this process, and their way out of it.
//!
//! Counting is one atomic addition for each figure, found by the tenant's number: no lock, no allocation once a tenant's page is there. Each second
//! [`Usage::drain`] takes the differences. They go to [`journal`] (for the bill) and to [`crate::top`] (for now). Always: what is added
//! is drained exactly once.

pub mod counters;
pub mod journal;

pub use counters::Usage;

use serde::{Deserialize, Serialize};

/// What is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Meter {
    /// Requests.
    Requests,
    /// Bytes of requests' bodies.
    BytesIn,
    /// Bytes of answers' bodies.
    BytesOut,
    /// CPU time of handlers, microseconds.
    Cpu,
    /// Time for which a database connection was held, microseconds.
    Database,
    /// Rows that the database gave or changed.
    Rows,
    /// Requests that failed: answered with 5xx.
    Errors,
    /// Requests that were refused for their number: answered with 429.
    Throttled,
}

impl Meter {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Requests, Self::BytesIn, Self::BytesOut, Self::Cpu, Self::Database, Self::Rows, Self::Errors, Self::Throttled];

    /// As bills and reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::BytesIn => "bytes_in",
            Self::BytesOut => "bytes_out",
            Self::Cpu => "cpu_us",
            Self::Database => "database_us",
            Self::Rows => "rows",
            Self::Errors => "errors",
            Self::Throttled => "throttled",
        }
    }
}

/// One tenant's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amounts(pub [u64; Meter::ALL.len()]);

impl Amounts {
    /// One figure.
    #[must_use]
    pub const fn get(&self, meter: Meter) -> u64 {
        self.0[meter as usize]
    }

    /// Adds another's figures.
    pub fn add(&mut self, other: &Self) {
        for (own, more) in self.0.iter_mut().zip(&other.0) {
            *own = own.saturating_add(*more);
        }
    }

    /// Whether nothing was used.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|amount| *amount == 0)
    }
}
