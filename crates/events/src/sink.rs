//! Where a relay sends events.

use futures_util::future::BoxFuture;

use crate::envelope::Envelope;

/// Why the bus did not take an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// It may take it later.
    Later(String),
    /// It never will: it is set aside, and those behind it go on.
    Never(String),
}

/// A bus. Those of one tenant are handed over one after the other, each when the one before has been taken.
pub trait Sink: Send + Sync + 'static {
    /// Whether it is worth trying.
    fn is_up(&self) -> bool;

    /// Hands over an event. Well only when the bus has it for good.
    fn send<'a>(&'a self, envelope: &'a Envelope, body: &'a str) -> BoxFuture<'a, Result<(), SendError>>;
}
