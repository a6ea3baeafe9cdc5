//! A connection on which a request was sent already, for whoever is to read its answer as if the request had been his.
//!
//! Always: the request that he writes goes nowhere and is as long as the one that was sent; only then he reads, first what was read before.

use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// See the module.
pub(crate) struct Resumed {
    stream: TcpStream,
    /// Bytes of a request that were sent; none once they were written again.
    sent: usize,
    /// What was read.
    read: Bytes,
}

impl Resumed {
    /// Nothing was sent yet where `sent` is 0.
    pub(crate) const fn new(stream: TcpStream, sent: usize, read: Bytes) -> Self {
        Self { stream, sent, read }
    }

    /// The connection, when nothing is left of before.
    pub(super) fn into_stream(self) -> Option<TcpStream> {
        (self.sent == 0 && self.read.is_empty()).then_some(self.stream)
    }

    fn write_again(&mut self, len: usize, cx: &Context<'_>) -> Result<usize> {
        if len != self.sent {
            return Err(Error::other("a request is not what it was"));
        }
        self.sent = 0;
        // There may be something to read from now on.
        cx.waker().wake_by_ref();
        Ok(len)
    }
}

impl AsyncRead for Resumed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.sent > 0 {
            return Poll::Pending;
        }
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let len = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..len]);
        self.read.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Resumed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        if self.sent > 0 {
            return Poll::Ready(self.write_again(buf.len(), cx));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        if self.sent > 0 {
            let len = bufs.iter().map(|buf| buf.len()).sum();
            return Poll::Ready(self.write_again(len, cx));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
