//! The keys of the cells that a worker serves. They change while it runs: cells come and go.

use insula_core::KeyRing;
use tokio::sync::watch;

/// Keys as they are now. Of a [`KeyRing`] they stay as they are; of a channel they follow it.
#[derive(Clone, Debug)]
pub struct Keys(watch::Receiver<KeyRing>);

impl From<KeyRing> for Keys {
    fn from(ring: KeyRing) -> Self {
        Self(watch::channel(ring).1)
    }
}

impl From<watch::Receiver<KeyRing>> for Keys {
    fn from(ring: watch::Receiver<KeyRing>) -> Self {
        Self(ring)
    }
}

impl Keys {
    pub(crate) fn now(&self) -> watch::Ref<'_, KeyRing> {
        self.0.borrow()
    }

    /// Waits for others; for ever, when there will be none.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
