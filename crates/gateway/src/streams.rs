//! The streams of an HTTP/2 connection: each is a task with a deadline of its own, and hands its answer over in pieces.
//!
//! Always: a stream whose client takes nothing, or whose application falls silent, is reset in time, whatever moves beside it; a connection lasts as
//! long as it has streams, and is idle without them.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use insula_http::observe::Observed;

use crate::body::{Body, BoxError};
use crate::watch::{Phase, Watch};

/// Bytes that are handed over at once. A client that takes less in the time it has is one that takes nothing.
const PIECE: usize = 16 << 10;

const NEVER: u64 = u64::MAX;

/// Runs a connection's streams on the worker's own thread.
#[derive(Clone)]
pub(crate) struct Streams {
    /// The connection's.
    watch: Arc<Watch>,
    open: Rc<Cell<usize>>,
    /// Of the stream whose service was called and whose task is not spawned yet: hyper does one straight after the other.
    next: Rc<Cell<Option<Arc<Watch>>>>,
}

impl Streams {
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        Self { watch, open: Rc::default(), next: Rc::default() }
    }

    /// The task that is spawned next is a stream under this watch.
    pub(crate) fn begin(&self, watch: Arc<Watch>) {
        self.next.set(Some(watch));
    }

    fn open(&self) -> Open {
        self.open.set(self.open.get() + 1);
        self.watch.enter(Phase::Stream, NEVER);
        Open(self.clone())
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        let Some(watch) = self.next.take() else {
            tokio::task::spawn_local(future);
            return;
        };
        let open = self.open();
        tokio::task::spawn_local(async move {
            let mut future = std::pin::pin!(future);
            // Dropped before its end, it resets its stream.
            std::future::poll_fn(|cx| {
                watch.register(cx);
                let outcome = Pin::as_mut(&mut future).poll(cx);
                if outcome.is_ready() || watch.is_lost() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            drop(open);
        });
    }
}

/// A stream, counted while it lasts.
struct Open(Streams);

impl Drop for Open {
    fn drop(&mut self) {
        let Streams { watch, open, .. } = &self.0;
        open.set(open.get() - 1);
        if open.get() == 0 {
            watch.enter(Phase::Stream, watch.timeouts().idle_ms);
        }
    }
}

/// An answer's body. Its watch knows at any time who is waited for: the application, or the client.
pub(crate) struct Pieces {
    body: Observed<Body>,
    rest: Bytes,
    watch: Arc<Watch>,
    is_clients_turn: bool,
}

impl Pieces {
    pub(crate) fn new(body: Observed<Body>, watch: Arc<Watch>) -> Self {
        let this = Self { body, rest: Bytes::new(), watch, is_clients_turn: true };
        this.watch.enter(Phase::Stream, this.watch.timeouts().send_ms);
        this
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending => {
                    if std::mem::take(&mut this.is_clients_turn) {
                        this.watch.enter(Phase::Stream, this.watch.timeouts().stream_ms);
                    }
                    return Poll::Pending;
                }
            };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        this.is_clients_turn = true;
        this.watch.enter(Phase::Stream, this.watch.timeouts().send_ms);
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let (lower, upper) = (hint.lower() + rest, hint.upper().map(|upper| upper + rest));
        if let Some(upper) = upper {
            hint.set_upper(upper);
        }
        hint.set_lower(lower);
        hint
    }
}
