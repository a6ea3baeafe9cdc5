//! The time, as a value that tests own.

use std::fmt;
use std::sync::Arc;

use insula_core::{Clock, SystemClock};

/// A clock to share.
#[derive(Clone)]
pub(super) struct SharedClock(Arc<dyn Clock>);

impl SharedClock {
    pub(super) fn of(clock: impl Clock) -> Self {
        Self(Arc::new(clock))
    }

    /// Unix seconds.
    pub(super) fn now(&self) -> i64 {
        self.0.unix_seconds()
    }
}

impl Default for SharedClock {
    fn default() -> Self {
        Self::of(SystemClock)
    }
}

impl fmt::Debug for SharedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedClock")
    }
}
