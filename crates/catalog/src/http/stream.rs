//! The stream of changes: connects, reads, and begins anew from where the reader stands.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{MOST_FRAMES, Shared, identity};
use crate::Error;
use crate::backoff::Backoff;
use crate::wire::{CHANGES, CURRENT, Events, Frame, LOADED, PAGE, Revision};

/// A stream that says nothing for so long is dead: the control plane gives a sign of life several times a second.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Streams until nobody waits for wake-ups any more. The follower's polling covers the times without a stream, and reports them:
/// here is silence.
pub(super) async fn follow(shared: Arc<Shared>, wake: watch::Sender<()>) {
    let mut at = shared.at.subscribe();
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            () = wake.closed() => return,
            // The sender lives in `shared`.
            _ = at.wait_for(|at| *at >= 0) => {}
        }
        let since = *at.borrow_and_update();
        let connected = Instant::now();
        tokio::select! {
            () = wake.closed() => return,
            result = stream(&shared, since, &wake) => if let Err(error) = result {
                tracing::debug!(%error, "no stream of the catalog");
            }
        }
        // Whoever relied on the stream is to ask now.
        wake.send_replace(());
        if connected.elapsed() > Duration::from_secs(10) {
            backoff = Backoff::default();
        }
        tokio::select! {
            () = wake.closed() => return,
            () = sleep(backoff.next_delay()) => {}
        }
    }
}

/// One stream, until it breaks or must be begun anew.
async fn stream(shared: &Shared, since: i64, wake: &watch::Sender<()>) -> Result<(), Error> {
    {
        let mut inbox = shared.inbox();
        inbox.frames.clear();
        (inbox.current, inbox.broken) = (None, false);
    }
    let asked = timeout(CONNECT, shared.get(&["v1", "catalog", "watch"], Some(since)));
    let mut response = asked.await.map_err(|_| Error::Timeout)??;
    let known = shared.inbox().catalog;
    if known.is_some() && identity(&response) != known {
        return Err(Error::Answer("it is of another catalog".into()));
    }
    let mut events = Events::default();
    while let Some(bytes) = timeout(SILENCE, response.chunk()).await.map_err(|_| Error::Timeout)?? {
        events.push(&bytes)?;
        while let Some(event) = events.next()? {
            match event.name.as_str() {
                CHANGES => {
                    let frame: Frame = event.read()?;
                    let mut inbox = shared.inbox();
                    if inbox.broken || inbox.frames.len() >= MOST_FRAMES {
                        return Err(Error::Answer("changes are missing".into()));
                    }
                    inbox.frames.push_back(frame);
                }
                CURRENT => {
                    let current: Revision = event.read()?;
                    let mut inbox = shared.inbox();
                    if inbox.broken {
                        return Err(Error::Answer("changes are missing".into()));
                    }
                    inbox.current = Some(current.revision);
                }
                // The feed has moved on from where the reader stands; it finds that out by asking, and loads.
                PAGE | LOADED => {
                    shared.stands_at(-1);
                    return Ok(());
                }
                _ => continue,
            }
            wake.send_replace(());
        }
    }
    Err(Error::Answer("the stream has ended".into()))
}
