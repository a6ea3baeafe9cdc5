//! Bodies on their way: a request's to upstream, an answer's to the client.
//!
//! Always: a piece is passed on as it comes; nothing is collected. Whatever moves extends the time of the connection's watch.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use insula_http::observe::Spent;

use crate::upstream::Streaming;
use crate::watch::{Phase, Watch};

/// What hyper is told when a body breaks off; it closes the connection.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body.
pub(crate) enum Body {
    /// None, or made here.
    Full(Option<Bytes>),
    /// From upstream. Boxed: most answers are there whole, and move with their heads.
    Stream(Box<Streaming>),
}

impl Body {
    pub(crate) const fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(stream) => stream.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// Why a request's body did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is longer than allowed.
    TooLarge {
        /// How long it may be.
        most: u64,
    },
    /// The client broke off, or broke the rules of the encoding.
    Broken,
}

/// How far a request's body has come; who waits for the answer reads it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Not all of it has come yet.
    pub(crate) is_coming: Cell<bool>,
    /// It is the client's turn to send more.
    pub(crate) is_awaited: Cell<bool>,
    /// It was waited for so long that the time until the answer says nothing of the cell.
    pub(crate) is_slow: Cell<bool>,
    pub(crate) fault: Cell<Option<Fault>>,
    /// What has come is counted here.
    pub(crate) spent: Arc<Spent>,
}

/// A request's body, counted.
#[derive(Default)]
pub(crate) enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// From the client.
    Client(ClientBody),
}

pub(crate) struct ClientBody {
    inner: Incoming,
    most: u64,
    left: u64,
    /// How long upstream may take once all is there, milliseconds.
    within: u64,
    progress: Rc<Progress>,
    watch: Arc<Watch>,
}

impl RequestBody {
    /// `most` bytes may come; `within` milliseconds from their end there is to be an answer.
    pub(crate) fn of(inner: Option<Incoming>, most: u64, within: u64, progress: &Rc<Progress>, watch: &Arc<Watch>) -> Self {
        let Some(inner) = inner else {
            watch.enter(Phase::Answer, within);
            return Self::Empty;
        };
        progress.is_coming.set(true);
        let (progress, watch) = (Rc::clone(progress), Arc::clone(watch));
        Self::Client(ClientBody { inner, most, left: most, within, progress, watch })
    }
}

impl ClientBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.progress.is_awaited.set(polled.is_pending());
        let fault = match &polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.progress.spent.bytes_in.fetch_add(len, Ordering::Relaxed);
                match self.left.checked_sub(len) {
                    Some(left) => {
                        self.left = left;
                        None
                    }
                    None => Some(Fault::TooLarge { most: self.most }),
                }
            }
            Poll::Ready(Some(Err(_))) => Some(Fault::Broken),
            Poll::Ready(None) => None,
        };
        if let Some(fault) = fault {
            self.progress.fault.set(Some(fault));
            return Poll::Ready(Some(Err(format!("{fault:?}").into())));
        }
        if self.inner.is_end_stream() || matches!(polled, Poll::Ready(None)) {
            // From here on it is upstream's time.
            self.progress.is_coming.set(false);
            self.watch.enter(Phase::Answer, self.within);
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.inner.size_hint(),
        }
    }
}
