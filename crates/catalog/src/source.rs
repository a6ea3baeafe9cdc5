//! Where knowledge of the catalog comes from.

use std::future::Future;

use tokio::sync::{mpsc, watch};

use crate::Error;
use crate::row::{Changes, Page};

/// A catalog that can be loaded, asked for changes, and listened to. Every implementation passes `tests/it/contract.rs`.
///
/// Always: what one call answers is the catalog at *one* revision, all of it and nothing later. Later revisions are greater.
pub trait Source: Send + Sync + 'static {
    /// Sends the whole catalog, page by page, and answers its revision. Stops early, with [`Error::Stopped`], when the receiver
    /// is gone.
    fn load(&self, pages: mpsc::Sender<Page>) -> impl Future<Output = Result<i64, Error>> + Send;

    /// All that changed after revision `since`, and the revision now.
    ///
    /// [`Error::Trimmed`] when the feed no longer reaches back so far, or is behind `since` (an older backup came back): load.
    fn changes(&self, since: i64) -> impl Future<Output = Result<Changes, Error>> + Send;

    /// A value that is marked changed whenever the catalog may have changed. It is a hint: it may come without a change, and a
    /// change may come without it (the follower polls behind it). Listening ends when the receiver is dropped.
    fn wake_ups(&self) -> watch::Receiver<()>;
}
