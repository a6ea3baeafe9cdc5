//! Keeps the snapshot file: writes it when there is something new, as often as is cheap, and never in the way of the follower.
//!
//! Always: one write at a time, on a thread for waiting; writing takes at most a twentieth of the time, and a small catalog is on disk a
//! second after it changed. A disk that fails is reported when it begins to and when it has stopped.

use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::disk::{self, Meta};
use crate::writer::Writer;

/// The least pause between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause times cost of a write.
const SHARE: u32 = 20;
/// How often it is noted that the file still holds the present.
const NOTE: Duration = Duration::from_secs(2);
/// Until a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

pub(crate) struct Keeper {
    path: PathBuf,
    /// What the file is of.
    there: Option<Meta>,
    work: Option<JoinHandle<Done>>,
    /// Not before then.
    next: Instant,
    failing: bool,
}

struct Done {
    wrote: std::io::Result<()>,
    meta: Meta,
    took: Duration,
}

impl Keeper {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, there: None, work: None, next: Instant::now(), failing: false }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The file was read, and is of this.
    pub(crate) fn found(&mut self, meta: Meta) {
        self.there = Some(meta);
    }

    /// When to look again at the latest, if what is known stays as it is.
    pub(crate) fn due(&self, revision: Option<i64>) -> Option<Instant> {
        let dirty = revision.is_some() && self.there.map(|meta| meta.revision) != revision;
        (dirty && self.work.is_none()).then_some(self.next)
    }

    /// The source was just heard of: writes what is known as of `meta`, if it is new and it is time.
    pub(crate) async fn keep(&mut self, writer: &Writer, meta: Meta) {
        if let Some(work) = self.work.take_if(|work| work.is_finished()) {
            self.done(work.await.ok());
        }
        if self.work.is_some() || Instant::now() < self.next {
            return;
        }
        let current = self.there.filter(|there| (there.revision, there.catalog) == (meta.revision, meta.catalog));
        let path = self.path.clone();
        let began = Instant::now();
        if let Some(current) = current {
            self.next = began + NOTE;
            let meta = Meta { contact: meta.contact, ..current };
            self.work = Some(tokio::task::spawn_blocking(move || {
                let wrote = disk::note_contact(&path, meta);
                Done { wrote, meta, took: Duration::ZERO }
            }));
        } else if let Some(frozen) = writer.freeze(meta) {
            self.work = Some(tokio::task::spawn_blocking(move || {
                let wrote = frozen.write(&path);
                Done { wrote, meta, took: began.elapsed() }
            }));
        } else {
            self.next = began + RETRY;
        }
    }

    fn done(&mut self, done: Option<Done>) {
        // A thread that panicked has written nothing.
        let Some(done) = done else { return };
        let now = Instant::now();
        match done.wrote {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(path = %self.path.display(), "the snapshot is on disk again");
                }
                if done.took > Duration::ZERO {
                    tracing::debug!(revision = done.meta.revision, seconds = done.took.as_secs_f32(), "snapshot written");
                    metrics::histogram!("insula_catalog_snapshot_write_seconds").record(done.took.as_secs_f64());
                    self.next = now + PAUSE.max(done.took * SHARE);
                }
                self.there = Some(done.meta);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(path = %self.path.display(), %error, "cannot write the snapshot: a start without the control plane would begin with an older one, or none");
                }
                metrics::counter!("insula_catalog_snapshot_failures_total").increment(1);
                self.there = None;
                self.next = now + RETRY;
            }
        }
    }

    /// The last word of a follower that ends: what is not on disk yet is written by whoever still can.
    pub(crate) fn end(&mut self, writer: &Writer, meta: Meta) {
        let there = self.there.is_some_and(|there| (there.revision, there.catalog) == (meta.revision, meta.catalog));
        if there {
            return;
        }
        if let Some(frozen) = writer.freeze(meta) {
            let (path, earlier, runtime) = (self.path.clone(), self.work.take(), Handle::current());
            drop(tokio::task::spawn_blocking(move || {
                // One that is still being written and this one would be in each other's way.
                if let Some(earlier) = earlier {
                    runtime.block_on(earlier).ok();
                }
                frozen.write(&path)
            }));
        }
    }
}
