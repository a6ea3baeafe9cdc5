//! An answer's body, with the connection that brings it.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use insula_http::admit::{Permit, Reading};
use tokio::net::TcpStream;

use super::link::Way;
use super::{Endpoint, Link};
use crate::body::BoxError;
use crate::watch::{Phase, Watch};

/// Read at once, at most.
const PIECE: usize = 64 << 10;

/// See the module.
pub(crate) struct Streaming {
    source: Source,
    /// `None` once it is given back, or given up.
    link: Option<Box<Link>>,
    endpoint: Rc<Endpoint>,
    watch: Arc<Watch>,
    /// The right to be at work, until the end.
    permit: Option<Reading>,
    /// Resolves when no more of it may be told.
    until: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// What it is read from.
pub(crate) enum Source {
    Incoming(Incoming),
    Sized(Sized),
}

/// A body of which is known how much is still to come.
pub(crate) struct Sized {
    /// Has come.
    here: Bytes,
    /// Is to come after that.
    left: u64,
}

impl Sized {
    pub(super) const fn new(here: Bytes, left: u64) -> Self {
        Self { here, left }
    }

    fn poll(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if !self.here.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.here))));
        }
        while self.left > 0 {
            ready!(stream.poll_read_ready(cx))?;
            let most = usize::try_from(self.left).map_or(PIECE, |left| left.min(PIECE));
            let mut piece = BytesMut::with_capacity(most);
            match stream.try_read_buf(&mut bytes::BufMut::limit(&mut piece, most)) {
                Ok(0) => return Poll::Ready(Some(Err("the application broke off".into()))),
                Ok(len) => {
                    self.left -= len as u64;
                    // Little is not to keep much from others.
                    let piece = if len < most / 4 { Bytes::copy_from_slice(&piece) } else { piece.freeze() };
                    return Poll::Ready(Some(Ok(piece)));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
        Poll::Ready(None)
    }
}

impl Source {
    fn is_end(&self) -> bool {
        match self {
            Self::Incoming(body) => body.is_end_stream(),
            Self::Sized(body) => body.left == 0 && body.here.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(body) => body.size_hint(),
            Self::Sized(body) => SizeHint::with_exact(body.left + body.here.len() as u64),
        }
    }

    fn poll(&mut self, link: Option<&mut Link>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match (self, link.map(Link::way)) {
            (Self::Sized(body), Some(Way::Plain(stream))) => return body.poll(stream, cx).map_ok(Frame::data),
            (Self::Sized(_), _) => return Poll::Ready(None),
            (Self::Incoming(body), Some(Way::Spoken(spoken))) => match spoken.take(body) {
                Poll::Pending => {
                    spoken.drive(cx);
                    spoken.take(body)
                }
                ready => ready,
            },
            (Self::Incoming(body), _) => Pin::new(body).poll_frame(cx),
        };
        polled.map_err(Into::into)
    }
}

impl Streaming {
    pub(crate) fn new(source: Source, link: Box<Link>, endpoint: Rc<Endpoint>, watch: Arc<Watch>) -> Self {
        let mut this = Self { source, link: Some(link), endpoint, watch, permit: None, until: None };
        this.give_back_at_end();
        this
    }

    /// A body whose connection has a task of its own.
    pub(crate) const fn detached(body: Incoming, endpoint: Rc<Endpoint>, watch: Arc<Watch>) -> Self {
        Self { source: Source::Incoming(body), link: None, endpoint, watch, permit: None, until: None }
    }

    /// Breaks off when `until` resolves.
    pub(crate) fn ends_with(&mut self, until: impl Future<Output = ()> + 'static) {
        self.until = Some(Box::pin(until));
    }

    /// Keeps the right to be at work until the last byte.
    pub(crate) fn hold(&mut self, permit: Permit) {
        self.permit = (!self.is_end()).then(|| Reading::new(permit));
    }

    fn give_back_at_end(&mut self) {
        if self.is_end() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        self.permit = None;
        if let Some(link) = self.link.take() {
            self.endpoint.give_back(link);
            // What comes next is the client's next request.
            self.watch.enter(Phase::Idle, self.watch.timeouts().idle_ms);
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
            (self.link, self.permit, self.until) = (None, None, None);
            return Poll::Ready(Some(Err("who asked for it may no longer".into())));
        }
        if let Some(permit) = &self.permit {
            permit.asked();
        }
        match self.source.poll(self.link.as_deref_mut(), cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                self.watch.extend(self.watch.timeouts().stream_ms);
                self.give_back_at_end();
                if let Some(permit) = &mut self.permit {
                    permit.handed(frame.data_ref().map_or(0, Bytes::len));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.link = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.give_back();
                Poll::Ready(None)
            }
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        self.source.is_end()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}
