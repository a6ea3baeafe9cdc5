//! Durable, resumable work: an operation is a row of the catalog, and steps that an engine carries out in order.
//!
//! For: claiming, leases, retries, undo, progress. Not for: what any step does (`provision`, `tenant_suspend`, ...).
//! Always: what a step has done is recorded in the same catalog transaction as its own catalog writes; a step may be
//! carried out again after a crash, so `forward` and `undo` are idempotent; an operation ends done, or undone and failed.

pub(crate) mod engine;
pub mod fault;
pub(crate) mod lease;
pub(crate) mod record;
pub(crate) mod step;
pub(crate) mod submit;
pub(crate) mod work;
