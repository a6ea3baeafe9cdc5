//! How much an application may say before it answers.
//!
//! Interim answers (1xx; RFC 9110, section 15.2) have no number and no end, and who reads them does nothing else meanwhile: an application that
//! sends them as fast as it can would hold up all that its worker carries. Always: what comes before the head of an answer is bounded; the
//! answer itself is not.

use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes until the head of an answer is there. What is read along with it, the first pieces of a body, has room in it, too.
const MOST: usize = 4 << 20;

const UNBOUNDED: usize = usize::MAX;

/// What may still be read from a connection.
#[derive(Clone, Debug)]
pub(crate) struct Measure(Arc<AtomicUsize>);

impl Default for Measure {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(UNBOUNDED)))
    }
}

impl Measure {
    /// An answer is waited for.
    pub(crate) fn begin(&self) {
        self.0.store(MOST, Ordering::Relaxed);
    }

    /// It is there, or nobody waits any more.
    pub(crate) fn end(&self) {
        self.0.store(UNBOUNDED, Ordering::Relaxed);
    }
}

/// A connection that is measured so.
pub(crate) struct Measured<S> {
    inner: S,
    measure: Measure,
}

impl<S> Measured<S> {
    pub(crate) const fn new(inner: S, measure: Measure) -> Self {
        Self { inner, measure }
    }

    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Measured<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let left = self.measure.0.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(Error::other("more than 4 MiB before an answer")));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if left != UNBOUNDED {
            self.measure.0.store(left.saturating_sub(buf.filled().len() - before), Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Measured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
