//! Pure decisions, floor 1: placement, fair shares, rates, limits, circuits, when something comes again. No I/O.
//!
//! For: what can be decided from values alone, and so tested by properties. Not for: carrying anything out.
//! Always: the same input gives the same answer.

pub mod again;
pub mod ahead;
pub mod bound;
pub mod breaker;
pub mod circuit;
pub mod cron;
pub mod gcra;
pub mod gradient;
pub mod lanes;
pub mod memory;
pub mod placement;
pub mod pot;
pub mod queue;
pub mod share;
pub mod slab;
