//! Events: what happened to a tenant's data, told to others.
//!
//! For: publishing in the transaction of the change ([`publish()`]), the relay that sends what was published to a bus ([`Relay`]), consumers
//! that handle it in its tenant's context (`Consumer`, with the feature `nats`), webhooks of a tenant's own ([`webhook`]), and how an event looks on
//! the wire ([`Envelope`], [`kafka`]). Not for: the outbox's rows (`insula-kit`, `sql/086_outbox.sql`), or running the jobs that webhooks are posted
//! by (the SDK does).
//! Always: an event belongs to a tenant; it exists exactly when its transaction committed; it is sent at least once, those of one tenant in
//! their order; a consumer's effects happen once, because what it has seen is written with them.

#[cfg(feature = "nats")]
mod consumer;
mod envelope;
mod error;
pub mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod publish;
mod relay;
mod sink;
mod topic;
pub mod webhook;

#[cfg(feature = "nats")]
pub use consumer::{Consumer, ConsumerConfig, Event, EventError};
pub use envelope::{Envelope, Unreadable, header};
pub use error::Error;
#[cfg(feature = "nats")]
pub use nats::{DEAD_STREAM, EVENTS_STREAM, Nats, NatsConfig};
pub use publish::{BODY_BYTES, EventId, publish, publish_all};
pub use relay::{Relay, RelayConfig};
pub use sink::{SendError, Sink};
pub use topic::{is_pattern, is_topic, wants};
