//! The change feed for data planes over HTTP: one reader of the feed, however many watch.
//!
//! For: keeping the newest changes as they go over the wire, and handing them to watchers ([`watcher`]). Not for: who may watch
//! (REST's authorization decides that).
//!
//! Always: what is kept leads on from `oldest` to `head` without a hole; a watcher is given what is kept and what comes after in one step, so
//! that nothing falls between; a sign of life is given only after the catalog was asked, so that a follower that hears one knows the
//! present. What watchers have not taken is kept once for all of them and is bounded; who is too slow for that is cut off and resumes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::body::Bytes;
use insula_catalog::row::Changes;
use insula_catalog::wire::{self, Revision};
use insula_catalog::{PgSource, Source as _};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Error;

pub(crate) mod load;
pub(crate) mod watcher;

/// Between two signs of life; the catalog is asked for each.
const BEAT: Duration = Duration::from_millis(400);
/// What is kept for who resumes.
const KEPT_BYTES: usize = 8 << 20;
const KEPT_FRAMES: usize = 4096;
/// News that a watcher may have before it is cut off.
const SLOWEST: usize = if cfg!(test) { 32 } else { 1024 };
/// Watchers at once, each a connection.
const MOST_WATCHERS: usize = 2_000;
/// Full loads at once: each is a transaction and reads all tenants.
const MOST_LOADS: usize = 2;
/// Connections to the catalog: one listens, one reads the feed, loads, and whoever asks.
const CONNECTIONS: u32 = 8;

/// The feed, for watchers. Clones share it.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Inner>);

struct Inner {
    source: PgSource,
    kept: Mutex<Kept>,
    news: broadcast::Sender<News>,
    loads: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
    reading: AtomicBool,
    closed: CancellationToken,
}

/// The newest changes.
#[derive(Default)]
struct Kept {
    /// Who stands here or later can go on from what is kept. Negative until the feed was first read.
    oldest: i64,
    head: i64,
    frames: VecDeque<Sent>,
    bytes: usize,
}

/// A frame as it goes over the wire.
#[derive(Clone, Debug)]
struct Sent {
    since: i64,
    revision: i64,
    bytes: Bytes,
}

#[derive(Clone, Debug)]
enum News {
    Frame(Sent),
    /// Nothing is missing up to this revision.
    Current(i64, Bytes),
    /// The feed was begun anew: see where you stand.
    Moved,
    /// A key was taken back.
    Revoked(Uuid),
}

/// What a watcher begins with.
enum Joined {
    /// These, and then what comes.
    On { frames: Vec<Sent>, news: broadcast::Receiver<News> },
    /// What is kept does not lead on from there.
    Behind,
}

impl Hub {
    /// A hub that reads the catalog at `url` from the first watcher on.
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        let source = PgSource::with_connections(url, CONNECTIONS).map_err(Error::Schema)?;
        Ok(Self(Arc::new(Inner {
            source,
            kept: Mutex::new(Kept { oldest: -1, head: -1, ..Kept::default() }),
            news: broadcast::Sender::new(SLOWEST),
            loads: Arc::new(Semaphore::new(MOST_LOADS)),
            watchers: Arc::new(Semaphore::new(MOST_WATCHERS)),
            reading: AtomicBool::new(false),
            closed: CancellationToken::new(),
        })))
    }

    /// Which catalog this is.
    pub(crate) async fn catalog(&self) -> Result<Uuid, Error> {
        self.0.source.catalog().await.map_err(Error::Schema)
    }

    /// All that changed after `since`, as of now; `None` when only a full load helps.
    pub(crate) async fn changes(&self, since: i64) -> Result<Option<Changes>, Error> {
        match self.0.source.changes(since).await {
            Ok(changes) => Ok(Some(changes)),
            Err(insula_catalog::Error::Trimmed { .. }) => Ok(None),
            Err(error) => Err(Error::Schema(error)),
        }
    }

    /// A key was taken back: who watches with it watches no longer.
    pub(crate) fn revoked(&self, key: Uuid) {
        // Nobody may be watching.
        let _ = self.0.news.send(News::Revoked(key));
    }

    /// Ends every stream, and reads no longer.
    pub(crate) fn close(&self) {
        self.0.closed.cancel();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn head(&self) -> i64 {
        self.kept().head
    }

    /// Hands over what is kept after `since` together with what comes.
    fn join(&self, since: i64) -> Joined {
        if !self.0.reading.swap(true, Ordering::AcqRel) {
            tokio::spawn(read(Arc::downgrade(&self.0), self.0.closed.clone()));
        }
        let kept = self.kept();
        if kept.oldest < 0 || since < kept.oldest {
            return Joined::Behind;
        }
        let frames = kept.frames.iter().filter(|sent| sent.revision > since).cloned().collect();
        Joined::On { frames, news: self.0.news.subscribe() }
    }

    /// Keeps and tells what the feed says.
    fn tell(&self, changes: &Changes) {
        let mut kept = self.kept();
        if changes.revision > kept.head {
            match frame(kept.head, changes) {
                Some(sent) => {
                    kept.bytes += sent.bytes.len();
                    kept.frames.push_back(sent.clone());
                    kept.head = sent.revision;
                    while kept.bytes > KEPT_BYTES || kept.frames.len() > KEPT_FRAMES {
                        let Some(old) = kept.frames.pop_front() else { break };
                        kept.bytes -= old.bytes.len();
                        kept.oldest = old.revision;
                    }
                    let _ = self.0.news.send(News::Frame(sent));
                }
                None => {
                    *kept = Kept { oldest: changes.revision, head: changes.revision, ..Kept::default() };
                    let _ = self.0.news.send(News::Moved);
                }
            }
        }
        if let Some(bytes) = current(kept.head) {
            let _ = self.0.news.send(News::Current(kept.head, bytes));
        }
    }

    /// Begins at a revision, and forgets what was.
    fn begin(&self, revision: i64) {
        let mut kept = self.kept();
        *kept = Kept { oldest: revision, head: revision, ..Kept::default() };
        let _ = self.0.news.send(News::Moved);
    }

    async fn read_once(&self) -> Result<(), insula_catalog::Error> {
        let head = self.kept().head;
        if head >= 0 {
            match self.0.source.changes(head).await {
                Ok(changes) => {
                    self.tell(&changes);
                    return Ok(());
                }
                Err(insula_catalog::Error::Trimmed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.begin(self.0.source.revision().await?);
        Ok(())
    }
}

/// Reads the feed until the hub is closed or gone.
async fn read(hub: Weak<Inner>, closed: CancellationToken) {
    let Some(mut wake) = hub.upgrade().map(|inner| inner.source.wake_ups()) else { return };
    let mut away = false;
    while let Some(hub) = hub.upgrade().map(Hub) {
        wake.mark_unchanged();
        let read = tokio::select! {
            read = hub.read_once() => read,
            () = closed.cancelled() => return,
        };
        drop(hub);
        match &read {
            Err(error) if !away => {
                tracing::warn!(%error, "cannot read the change feed: data planes hear nothing until it is back")
            }
            Ok(()) if away => tracing::info!("the change feed is read again"),
            _ => {}
        }
        away = read.is_err();
        tokio::select! {
            () = closed.cancelled() => return,
            _ = wake.changed() => {}
            () = tokio::time::sleep(BEAT) => {}
        }
    }
}

fn frame(since: i64, changes: &Changes) -> Option<Sent> {
    let bytes = wire::changes(since, changes).map_err(|error| tracing::error!(%error, "changes cannot be written")).ok()?;
    Some(Sent { since, revision: changes.revision, bytes: bytes.into() })
}

fn current(revision: i64) -> Option<Bytes> {
    Some(wire::event(wire::CURRENT, Some(revision), &Revision { revision }).ok()?.into())
}
