//! Stopping in order: first the signal, then a bounded drain, then the end.
//!
//! SIGTERM or SIGINT asks for a graceful stop: accept nothing new, finish what runs. When the deadline passes, or a second signal comes, `now` is reached and
//! what still runs is dropped. Always: a house given a [`Shutdown`] ends by its deadline; a stop, once asked for, is never taken back.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// How a bounded piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained<T> {
    /// By itself.
    Finished(T),
    /// The deadline, or a second signal, cut it off.
    CutOff,
}

/// The wish to stop, shared by all parts of a process. Clones share it.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// For every request to ask: the token's own answer is behind a lock.
    is_requested: Arc<AtomicBool>,
    graceful: CancellationToken,
    now: CancellationToken,
    deadline: Duration,
}

impl Shutdown {
    /// Without signals: for tests and for houses inside another process. `deadline` bounds the drain.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self { is_requested: Arc::default(), graceful: CancellationToken::new(), now: CancellationToken::new(), deadline }
    }

    /// Follows SIGTERM and SIGINT from now on. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals(deadline: Duration) -> Result<Self, Error> {
        let shutdown = Self::new(deadline);
        let terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
        tokio::spawn(watch(shutdown.clone(), terminate, interrupt));
        Ok(shutdown)
    }

    /// Asks for a graceful stop. The deadline starts with the first call that runs inside a tokio runtime.
    pub fn trigger(&self) {
        if self.is_requested.swap(true, Ordering::SeqCst) {
            return;
        }
        self.graceful.cancel();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (now, deadline) = (self.now.clone(), self.deadline);
            runtime.spawn(async move {
                tokio::time::sleep(deadline).await;
                now.cancel();
            });
        }
    }

    /// Ends the drain at once.
    pub fn trigger_now(&self) {
        self.is_requested.store(true, Ordering::SeqCst);
        self.graceful.cancel();
        self.now.cancel();
    }

    /// Waits until a stop is asked for. Owned, so that it fits `axum::serve(..).with_graceful_shutdown(..)`.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        self.graceful.clone().cancelled_owned()
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.is_requested.load(Ordering::SeqCst)
    }

    /// Waits until the drain is over, by deadline or by a second signal.
    pub fn now(&self) -> impl Future<Output = ()> + Send + 'static {
        self.now.clone().cancelled_owned()
    }

    /// Runs work that stops by itself when asked (a server with graceful shutdown), and cuts it off when the drain is over.
    pub async fn bound<F: Future>(&self, work: F) -> Drained<F::Output> {
        tokio::select! {
            biased;
            ended = work => Drained::Finished(ended),
            () = self.now.cancelled() => {
                tracing::warn!(deadline_s = self.deadline.as_secs(), "drain cut off: work was still running");
                Drained::CutOff
            }
        }
    }
}

async fn watch(shutdown: Shutdown, mut terminate: Signal, mut interrupt: Signal) {
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let first = next().await;
    tracing::info!(signal = first, deadline_s = shutdown.deadline.as_secs(), "stopping: finishing what runs");
    shutdown.trigger();
    let second = next().await;
    tracing::warn!(signal = second, "stopping now");
    shutdown.trigger_now();
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal as Number, raise};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_cuts_off_what_never_ends() {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        shutdown.trigger();
        assert!(shutdown.is_requested());
        assert_eq!(shutdown.bound(std::future::pending::<()>()).await, Drained::CutOff);
    }

    #[tokio::test]
    async fn what_ends_in_time_is_finished() {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let stopped = shutdown.requested();
        shutdown.trigger();
        assert_eq!(shutdown.bound(stopped).await, Drained::Finished(()));
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_ends() {
        let shutdown = Shutdown::on_signals(Duration::from_secs(60)).unwrap();
        raise(Number::SIGTERM).unwrap();
        shutdown.requested().await;
        raise(Number::SIGINT).unwrap();
        shutdown.now().await;
    }
}
