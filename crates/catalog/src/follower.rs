//! The background task that keeps a snapshot up to date: it loads once, then follows changes, woken by the source's push, by a
//! refresh, or by the clock. It is the snapshot's one writer.
//!
//! Always: it never gives up; an outage is logged once when it begins and once when it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::Error;
use crate::backoff::{Backoff, jittered};
use crate::catalog::{Freshness, Options, Shared};
use crate::disk::{self, Meta};
use crate::keeper::Keeper;
use crate::leftovers::Leftovers;
use crate::row::Change;
use crate::source::Source;
use crate::writer::Writer;

/// Changes at once that leave something behind worth giving back.
const MANY: usize = 500;

/// No refresh tries a failing source more often than this.
const LEAST_PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Follower<S> {
    source: Arc<S>,
    shared: Arc<Shared>,
    writer: Writer,
    poll: Duration,
    /// The revision that the snapshot shows; `None` before the first load.
    at: Option<i64>,
    outage: Option<Outage>,
    /// Refreshes that were answered.
    answered: u64,
    keeper: Option<Keeper>,
    /// How the age was judged last, and reported.
    judged: Freshness,
    leftovers: Leftovers,
}

struct Outage {
    since: Instant,
    backoff: Backoff,
}

impl<S: Source> Follower<S> {
    pub(crate) fn new(source: S, shared: Arc<Shared>, writer: Writer, options: &Options) -> Self {
        Self {
            source: Arc::new(source),
            shared,
            writer,
            poll: options.poll,
            at: None,
            outage: None,
            answered: 0,
            keeper: options.disk.clone().map(Keeper::new),
            judged: Freshness::Expired,
            leftovers: Leftovers::default(),
        }
    }

    /// Follows until every handle is gone.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<()>) {
        self.restore().await;
        let mut wake = self.source.wake_ups();
        let mut listening = true;
        loop {
            // Whoever asked for a refresh until here is answered by this pass.
            let asked = self.shared.asked.load(Ordering::Acquire);
            wake.mark_unchanged();
            let unread = self.writer.unread();
            if !unread.is_empty() {
                // The task goes on by itself.
                drop(tokio::task::spawn_blocking(|| drop(unread)));
            }
            let began = Instant::now();
            let passed = tokio::select! {
                // An error means that the last handle is gone; nothing is ever sent.
                _ = stop.changed() => return self.end(),
                passed = self.pass(asked) => passed,
            };
            let mut next = self.note(passed, asked);
            let failing = self.outage.is_some();
            if !failing {
                next = self.keep().await.map_or(next, |due| due.min(next));
            }
            self.judge();
            tokio::select! {
                _ = stop.changed() => return self.end(),
                // A push says that the source is there again, too.
                woken = wake.changed(), if listening => listening = woken.is_ok(),
                () = self.shared.refresh_asked(asked) => {}
                () = sleep_until(next) => {}
            }
            if failing {
                sleep_until(began + LEAST_PAUSE).await;
            }
        }
    }

    /// Begins with what an earlier process has left on the disk, if it did.
    async fn restore(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        let (sender, mut pages) = mpsc::channel(2);
        let path = keeper.path();
        let reading = tokio::task::spawn_blocking(move || {
            disk::clean_up(&path);
            if path.exists() { disk::read(&path, &sender).map(Some) } else { Ok(None) }
        });
        // A file that turns out to be damaged has changed nothing.
        let mut writer = self.writer.beginning();
        let mut load = writer.load();
        while let Some(page) = pages.recv().await {
            writer.page(&mut load, page);
        }
        let meta = match reading.await {
            Ok(Ok(Some(meta))) => meta,
            Ok(Err(error)) => return tracing::warn!(path = %keeper.path().display(), %error, "starting without it"),
            Ok(Ok(None)) | Err(_) => return,
        };
        writer.finish(load);
        self.writer = writer;
        self.leftovers.arise();
        keeper.found(meta);
        let age = Duration::from_millis(u64::try_from(disk::now().saturating_sub(meta.contact)).unwrap_or(0));
        self.source.resume(meta.revision, meta.catalog);
        self.shared.identify(meta.catalog);
        self.at = Some(meta.revision);
        self.shared.restored(meta.revision, age);
        tracing::info!(revision = meta.revision, age_seconds = age.as_secs(), "started from the snapshot on disk");
    }

    /// Keeps what is known on disk; answers when that is due if it is not now.
    async fn keep(&mut self) -> Option<Instant> {
        let meta = self.meta()?;
        let keeper = self.keeper.as_mut()?;
        keeper.keep(&self.writer, meta).await;
        keeper.due(Some(meta.revision))
    }

    fn meta(&self) -> Option<Meta> {
        Some(Meta { revision: self.at?, catalog: self.source.identity(), contact: disk::now() })
    }

    fn end(&mut self) {
        if let (Some(meta), Some(keeper), None) = (self.meta(), &mut self.keeper, &self.outage) {
            keeper.end(&self.writer, meta);
        }
    }

    /// Reports how old what is known is, and when that passes a bound.
    fn judge(&mut self) {
        let (age, now) = (self.shared.age(), self.shared.freshness());
        metrics::gauge!("insula_catalog_age_seconds").set(age.as_secs_f64());
        metrics::gauge!("insula_catalog_freshness").set(f64::from(now as u8));
        if let Some(at) = self.at {
            // Exact up to 2^53 revisions.
            metrics::gauge!("insula_catalog_revision").set(at as f64);
        }
        if self.at.is_some() && now > std::mem::replace(&mut self.judged, now) {
            let age_seconds = age.as_secs();
            match now {
                Freshness::Expired => {
                    tracing::error!(
                        age_seconds,
                        "the catalog is past its hard bound: keys are refused, the rest is served as it was"
                    );
                }
                _ => tracing::warn!(age_seconds, "the catalog is past its soft bound"),
            }
        }
    }

    /// Brings the snapshot to the present; when nobody asks for that, to what was pushed.
    async fn pass(&mut self, asked: u64) -> Result<(), Error> {
        let Some(mut at) = self.at else { return self.load().await };
        if asked == self.answered {
            let mut heard = false;
            while let Some(changes) = self.source.pushed(at) {
                if !self.apply(changes.changes) {
                    return self.load().await;
                }
                at = changes.revision;
                self.reached(at, false);
                heard = true;
            }
            if heard {
                return Ok(());
            }
        }
        match self.source.changes(at).await {
            Ok(changes) => {
                // Only a load knows what a plan that could not be read before is for.
                if !self.apply(changes.changes) {
                    return self.load().await;
                }
                self.reached(changes.revision, false);
                Ok(())
            }
            Err(Error::Trimmed { since }) => {
                tracing::info!(since, "the change feed does not reach back so far: loading the catalog anew");
                self.load().await
            }
            Err(error) => Err(error),
        }
    }

    /// Answers whether the changes suffice.
    fn apply(&mut self, changes: Vec<Change>) -> bool {
        if changes.len() >= MANY {
            self.leftovers.arise();
        }
        changes.is_empty() || self.writer.apply(changes)
    }

    async fn load(&mut self) -> Result<(), Error> {
        let (sender, mut pages) = mpsc::channel(2);
        let source = Arc::clone(&self.source);
        let mut load = self.writer.load();
        let began = Instant::now();
        let take = async {
            while let Some(page) = pages.recv().await {
                self.writer.page(&mut load, page);
            }
        };
        let (revision, ()) = tokio::join!(source.load(sender), take);
        let revision = revision?;
        self.writer.finish(load);
        self.leftovers.arise();
        self.reached(revision, true);
        tracing::info!(revision, seconds = began.elapsed().as_secs_f32(), "catalog loaded");
        Ok(())
    }

    fn reached(&mut self, revision: i64, anew: bool) {
        self.at = Some(revision);
        self.shared.identify(self.source.identity());
        self.shared.reached(revision, anew);
    }

    /// Keeps account of a pass; answers when the next one is due.
    fn note(&mut self, passed: Result<(), Error>, asked: u64) -> Instant {
        self.answered = asked;
        match passed {
            Ok(()) => {
                self.shared.contacted();
                self.shared.answer(asked, Ok(()));
                if let Some(outage) = self.outage.take() {
                    tracing::info!(seconds = outage.since.elapsed().as_secs_f32(), "the catalog is back");
                }
                Instant::now() + jittered(self.poll)
            }
            Err(error) => {
                if self.outage.is_none() {
                    tracing::warn!(%error, "the catalog does not answer: serving from what is known");
                }
                self.shared.answer(asked, Err(Arc::new(error)));
                let outage = self.outage.get_or_insert_with(|| Outage { since: Instant::now(), backoff: Backoff::default() });
                Instant::now() + outage.backoff.next_delay()
            }
        }
    }
}

impl<S> Drop for Follower<S> {
    /// Nobody waits for a refresh that will not come.
    fn drop(&mut self) {
        self.shared.answer(u64::MAX, Err(Arc::new(Error::Stopped)));
    }
}
