//! Every row, in the order of the speed table. A row is one module with `pub(crate) const ROW: Row`.

use crate::row::Row;

mod asker;
mod cache;
mod crowd;
mod decision;
pub mod door;
pub mod edge;
mod edge_memory;
mod fairness;
pub mod gateway;
mod ground;
pub mod house;
mod idle_memory;
mod lane;
mod lane_module;
mod noisy;
mod outage;
mod provision;
mod queue;
mod revocation;
mod route_lookup;
mod search;
mod tx;
mod up;

/// All of them.
pub const ROWS: &[Row] = &[
    lane::ROW,
    lane_module::ROW,
    tx::ROW,
    search::ROW,
    route_lookup::ROW,
    decision::ROW,
    cache::ROW,
    edge_memory::ROW,
    revocation::ROW,
    outage::ROW,
    gateway::ROW,
    noisy::ROW,
    fairness::ROW,
    queue::ROW,
    provision::ROW,
    up::ROW,
    idle_memory::ROW,
];
