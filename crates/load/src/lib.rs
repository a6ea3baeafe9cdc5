//! An open-loop load generator: requests are due at their times, whether or not the server keeps up.
//!
//! For: telling what tenants feel while others press (`insula load`, `bench/`). A request's latency counts from the moment at which it was *due*, not
//! from when a connection was free to carry it: a server that stalls for a second is charged with every request that was due in
//! that second (coordinated omission: Tene, "How NOT to measure latency"). Not for: browsers, scripts of several steps.
//!
//! Always: each tenant has connections of its own, so that one tenant's backlog delays no other's requests; memory is bounded, however long it runs;
//! what is due at the end and was not sent is in the figures, at the age that it had.

mod connection;
mod error;
pub mod expect;
pub mod html;
mod lane;
mod plan;
mod plot;
pub mod report;
mod run;
mod schedule;
mod tally;
pub mod tenants;
mod timer;
mod worker;

pub use error::Error;
pub use expect::Expectation;
pub use plan::{Arrivals, Plan, Target, Traffic};
pub use report::Report;
pub use run::{Live, Progress, run};
pub use tenants::{Rate, TenantLoad};
