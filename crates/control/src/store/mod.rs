//! SQL on the catalog, one file for each kind of thing. Functions take a connection; who calls decides the transaction.
//!
//! Always: text that people gave goes in as a parameter, never into the statement.

pub(crate) mod audit;
pub(crate) mod bundle;
pub(crate) mod cells;
pub(crate) mod certificates;
pub(crate) mod documents;
pub(crate) mod domains;
pub(crate) mod feed;
pub(crate) mod host_schedules;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod operations;
pub(crate) mod outbox;
pub(crate) mod page;
pub(crate) mod plans;
pub(crate) mod tenants;
pub(crate) mod usage;
pub(crate) mod warm;
pub(crate) mod webhooks;
