//! Where knowledge of the catalog comes from.

use std::future::Future;

use tokio::sync::{mpsc, watch};
use uuid::Uuid;

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

    /// Changes that have come by themselves and lead on from revision `since`, the next of them at once: for a source that is sent
    /// the changes and not only the news that there are some. An answer without changes says that the source was heard of and has
    /// nothing more than that. `None`: ask ([`Source::changes`]). Costs nothing; may be behind what was committed.
    fn pushed(&self, since: i64) -> Option<Changes> {
        let _ = since;
        None
    }

    /// Which catalog this is, as far as it is known: revisions of two catalogs have nothing to do with each other.
    fn identity(&self) -> Option<Uuid> {
        None
    }

    /// Begins with what an earlier process knew: a revision of the catalog `identity`. If that is not this one, the next
    /// [`Source::changes`] answers [`Error::Trimmed`].
    fn resume(&self, revision: i64, identity: Option<Uuid>) {
        let _ = (revision, identity);
    }

    /// A value that is marked changed whenever the catalog may have changed. It is a hint: it may come without a change, and a
    /// change may come without it (the follower polls behind it). Listening ends when the receiver is dropped.
    fn wake_ups(&self) -> watch::Receiver<()>;
}
