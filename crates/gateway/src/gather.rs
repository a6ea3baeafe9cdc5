//! Writes a little that lies in several places as one.
//!
//! Heads and small bodies are most of what a gateway writes. The kernel takes half as long for the way into `send` as for the one into `writev`,
//! more than it costs to lay the bytes side by side.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is laid side by side, at most.
const LITTLE: usize = 1024;

/// A stream that is written so.
#[derive(Debug)]
pub(crate) struct Gathered<S>(pub(crate) S);

/// Writes what `bufs` hold, or the first part of it.
pub(crate) fn poll_write<S: AsyncWrite>(stream: Pin<&mut S>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
    if let [one] = bufs {
        return stream.poll_write(cx, one);
    }
    if bufs.iter().map(|buf| buf.len()).sum::<usize>() > LITTLE {
        return stream.poll_write_vectored(cx, bufs);
    }
    let (mut room, mut len) = ([0; LITTLE], 0);
    for buf in bufs {
        room[len..len + buf.len()].copy_from_slice(buf);
        len += buf.len();
    }
    stream.poll_write(cx, &room[..len])
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        poll_write(Pin::new(&mut self.0), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_is_written_arrives_in_order_whatever_its_pieces() {
        let parts: [&[usize]; 7] =
            [&[1], &[LITTLE * 40], &[700, 0, 324], &[700, 325], &[0, 0], &[1, LITTLE * 60, 2], &[LITTLE - 1, 1]];
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let near = tokio::net::TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        let (mut far, _) = listener.accept().await.expect("accepted");
        let mut next = 0_u8;
        let mut piece = |len: &usize| -> Vec<u8> {
            let mut byte = || {
                next = next.wrapping_mul(31).wrapping_add(7);
                next
            };
            std::iter::repeat_with(&mut byte).take(*len).collect()
        };
        let writes: Vec<Vec<Vec<u8>>> = parts.iter().map(|part| part.iter().map(&mut piece).collect()).collect();
        let whole: Vec<u8> = writes.iter().flatten().flatten().copied().collect();
        let writer = async move {
            let mut near = Gathered(near);
            for write in &writes {
                let mut left: VecDeque<&[u8]> = write.iter().map(Vec::as_slice).collect();
                while left.iter().any(|piece| !piece.is_empty()) {
                    let slices: Vec<IoSlice<'_>> = left.iter().map(|piece| IoSlice::new(piece)).collect();
                    let mut done = near.write_vectored(&slices).await.expect("written");
                    assert!(done > 0);
                    while let Some(first) = left.pop_front() {
                        if done < first.len() {
                            left.push_front(&first[done..]);
                            break;
                        }
                        done -= first.len();
                    }
                }
            }
            near.shutdown().await.expect("ended");
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(writer, far.read_to_end(&mut got));
        read.expect("read");
        assert!(got == whole, "{} of {} bytes, or others", got.len(), whole.len());
    }
}
