//! The whole catalog, page by page, at one revision.

use std::time::Duration;

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use insula_catalog::row::Page;
use insula_catalog::wire::{self, Line, Revision};
use insula_catalog::{Error, Source as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Hub;

/// Pages that wait for the reader: a slow one slows the reading down.
const WAITING: usize = 1;

/// A reader that takes longer keeps a turn from others, and old rows from being cleaned up.
const LONGEST: Duration = Duration::from_secs(300);

/// A load under way; ends with its value.
pub(super) struct Load {
    pages: mpsc::Receiver<Page>,
    work: JoinHandle<Result<i64, Error>>,
}

impl Load {
    /// Waits for its turn and begins.
    pub(super) async fn begin(hub: &Hub) -> Self {
        // The semaphore is never closed.
        let turn = hub.0.loads.clone().acquire_owned().await.ok();
        let (sender, pages) = mpsc::channel(WAITING);
        let inner = std::sync::Arc::clone(&hub.0);
        let work = tokio::spawn(async move {
            let _turn = turn;
            tokio::time::timeout(LONGEST, inner.source.load(sender)).await.map_err(|_| Error::Timeout)?
        });
        Self { pages, work }
    }

    /// The next page, or the revision of all of them.
    pub(super) async fn next(&mut self) -> Result<Result<Page, i64>, Error> {
        if let Some(page) = self.pages.recv().await {
            return Ok(Ok(page));
        }
        (&mut self.work).await.map_err(|_| Error::Stopped)?.map(Err)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// The whole catalog as lines of JSON; breaks off where the catalog fails.
pub(crate) fn lines(hub: Hub) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    enum Stage {
        Waiting(Hub),
        Loading(Load),
        Over,
    }
    unfold(Stage::Waiting(hub), async |stage| {
        let mut load = match stage {
            Stage::Waiting(hub) => Load::begin(&hub).await,
            Stage::Loading(load) => load,
            Stage::Over => return None,
        };
        let line = match load.next().await {
            Ok(Ok(page)) => Line::Page(page),
            Ok(Err(revision)) => Line::Loaded(Revision { revision }),
            Err(error) => {
                tracing::warn!(%error, "a full load of the catalog was cut off");
                return Some((Err(error), Stage::Over));
            }
        };
        let stage = if matches!(line, Line::Loaded(_)) { Stage::Over } else { Stage::Loading(load) };
        let bytes = wire::line(&line).map(Bytes::from).map_err(|e| Error::Answer(e.to_string()));
        Some((bytes, stage))
    })
}
