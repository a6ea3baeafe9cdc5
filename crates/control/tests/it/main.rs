//! The control plane against real servers: provisioning with everything that can go wrong, and what is left after it; and
//! the REST API over it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod console;
mod console_browser;
mod edge_chaos;
mod edge_disk;
mod edge_documents;
mod edge_feed;
mod edge_house;
mod edge_tls;
mod faults;
mod feed;
mod held;
mod house;
mod jobs;
mod lifecycle;
mod load;
mod outage;
mod provision;
mod removal;
mod rest_authorization;
mod rest_certificates;
mod rest_domains;
mod rest_house;
mod rest_idempotency;
mod rest_identity;
mod rest_input;
mod rest_plans;
mod rest_stream;
mod rest_tenants;
mod tls;
mod usage;
mod webhooks;
