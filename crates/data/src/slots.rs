//! How many connections this process holds, idle ones included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// The count and its bound.
#[derive(Debug)]
pub(crate) struct Slots {
    open: AtomicU32,
    most: u32,
    freed: Notify,
}

/// One connection's place in the count.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Slots>);

impl Slots {
    pub(crate) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { open: AtomicU32::new(0), most: most.max(1), freed: Notify::new() })
    }

    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// A slot, when one is free.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Slot> {
        let more = |open: u32| (open < self.most).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).ok()?;
        Some(Slot(self.clone()))
    }

    /// A slot: closes an idle connection through `evict` when none is free, and waits when there is none to close.
    pub(crate) async fn take_evicting<F: Future<Output = bool>>(self: &Arc<Self>, evict: impl Fn() -> F) -> Slot {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(slot) = self.take() {
                return slot;
            }
            if !evict().await {
                freed.await;
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_waiters();
    }
}
