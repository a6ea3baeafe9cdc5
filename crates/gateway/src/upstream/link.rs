//! One connection to an application, driven by the request that uses it.
//!
//! Most exchanges are [`plain`] and need nothing but the socket; hyper speaks on it for the others, and where an answer turns out to be none of
//! the plain. Always: it is left off where hyper could take over, and hyper is left where nothing of it remains.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::plain::{self, ROOM, Seen};
use super::spoken::Spoken;
use super::streaming::Sized;
use crate::body::{BoxError, RequestBody};
use crate::scratch;
use crate::watch::Watch;

/// A connection that serves one request at a time.
pub(crate) struct Link {
    way: Way,
    /// The last answer was for hyper: so is the next, probably.
    is_odd: bool,
    /// What has come of an answer's head that is not whole.
    got: Vec<u8>,
    /// Whether it has carried an answer before: then the application may have closed it meanwhile.
    pub(crate) is_used: bool,
    /// When it was last given back, by the worker's clock.
    pub(crate) idle_since: u64,
}

/// How it is spoken on.
pub(super) enum Way {
    Plain(TcpStream),
    Spoken(Box<Spoken>),
    /// Not any more.
    Closed,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection was gone before a byte of the request was on it; the request is whole.
    Unsent,
    /// It broke after that; nobody knows what the application has done.
    Broken {
        error: BoxError,
        /// The request may be sent again, and is whole.
        is_harmless: bool,
    },
    /// The time is over.
    Timeout,
}

impl Failure {
    pub(crate) fn broken(error: impl Into<BoxError>) -> Self {
        Self::Broken { error: error.into(), is_harmless: false }
    }
}

/// An answer's head, and where its body comes from.
pub(crate) enum Answer {
    /// It is here; whether the connection is good for another request.
    Whole(Response<Bytes>, bool),
    /// The rest comes by the connection, and is so long.
    Sized(Response<Sized>),
    /// By the connection, as hyper has it.
    Spoken(Response<Incoming>),
}

/// How long an answer is waited for.
pub(crate) struct Limit<'a>(pub(crate) Option<&'a Watch>);

impl Limit<'_> {
    pub(super) fn is_over(&self) -> bool {
        self.0.is_some_and(Watch::is_over)
    }
}

/// Whether doing it twice is doing it once.
pub(super) fn is_harmless(request: &Request<RequestBody>) -> bool {
    request.method().is_idempotent() && matches!(request.body(), RequestBody::Empty)
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestBody")
    }
}

impl Link {
    pub(crate) fn new(stream: TcpStream) -> Box<Self> {
        Box::new(Self { way: Way::Plain(stream), is_odd: false, got: Vec::new(), is_used: false, idle_since: 0 })
    }

    pub(super) const fn way(&mut self) -> &mut Way {
        &mut self.way
    }

    /// Whether it can carry a request now. Looks at the socket, as far as the runtime knows of it.
    pub(crate) fn is_usable(&mut self) -> bool {
        match &mut self.way {
            // Neither an end nor a byte that nobody asked for.
            Way::Plain(stream) => {
                matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
            }
            Way::Spoken(spoken) => spoken.is_usable(),
            Way::Closed => false,
        }
    }

    /// Sends a request of our own; the status of its answer.
    pub(crate) async fn ask(&mut self, mut request: Request<RequestBody>) -> Option<StatusCode> {
        match self.send(&mut request, &Limit(None)).await.ok()? {
            Answer::Whole(response, _) => Some(response.status()),
            Answer::Sized(response) => Some(response.status()),
            Answer::Spoken(response) => Some(response.status()),
        }
    }

    /// Sends a request and waits for the head of its answer, as long as the limit allows. What is left of the request is of no use, but where a
    /// failure says so.
    pub(crate) async fn send(&mut self, request: &mut Request<RequestBody>, limit: &Limit<'_>) -> Result<Answer, Failure> {
        if !plain::is_plain(request) {
            return Box::pin(self.speak(request, limit, 0)).await;
        }
        if matches!(self.way, Way::Spoken(_)) {
            if self.is_odd {
                return Box::pin(self.speak(request, limit, 0)).await;
            }
            self.fall_silent()?;
        }
        let mut head = scratch::bytes();
        plain::write(request, &mut head);
        let len = head.len();
        if len > ROOM {
            return Box::pin(self.speak(request, limit, 0)).await;
        }
        let mut written = 0;
        let answer = std::future::poll_fn(|cx| match self.poll_plain(cx, request, &mut head, &mut written) {
            Poll::Pending if limit.is_over() => Poll::Ready(Err(Failure::Timeout)),
            polled => polled,
        });
        match answer.await? {
            Some(answer) => Ok(answer),
            None => Box::pin(self.speak(request, limit, len)).await,
        }
    }

    /// What comes of a plain request with this head; nothing where hyper is to read it.
    fn poll_plain(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<RequestBody>,
        head: &mut Vec<u8>,
        written: &mut usize,
    ) -> Poll<Result<Option<Answer>, Failure>> {
        let Way::Plain(stream) = &mut self.way else { return Poll::Ready(Err(Failure::Unsent)) };
        let mut stream = Pin::new(stream);
        let broken = |error: std::io::Error| Failure::Broken { error: error.into(), is_harmless: is_harmless(request) };
        while *written < head.len() {
            match std::task::ready!(stream.as_mut().poll_write(cx, &head[*written..])) {
                Ok(len) if len > 0 => *written += len,
                _ if *written == 0 => return Poll::Ready(Err(Failure::Unsent)),
                Ok(_) => return Poll::Ready(Err(broken(std::io::ErrorKind::WriteZero.into()))),
                Err(error) => return Poll::Ready(Err(broken(error))),
            }
        }
        if !head.is_empty() {
            scratch::give_back_bytes(std::mem::take(head));
        }
        loop {
            let mut room = [const { MaybeUninit::<u8>::uninit() }; ROOM];
            let mut buf = ReadBuf::uninit(&mut room);
            if let Err(error) = std::task::ready!(stream.as_mut().poll_read(cx, &mut buf)) {
                return Poll::Ready(Err(broken(error)));
            }
            if buf.filled().is_empty() {
                return Poll::Ready(Err(broken(std::io::ErrorKind::UnexpectedEof.into())));
            }
            let bytes = if self.got.is_empty() {
                buf.filled()
            } else {
                self.got.extend_from_slice(buf.filled());
                &self.got
            };
            match plain::read(bytes, *request.method() == Method::HEAD) {
                Seen::Head { response, body, left, is_astray } => {
                    self.got = Vec::new();
                    return Poll::Ready(Ok(Some(if left > 0 {
                        Answer::Sized(response.map(|()| Sized::new(body, left)))
                    } else {
                        Answer::Whole(response.map(|()| body), !is_astray)
                    })));
                }
                seen => {
                    if self.got.is_empty() {
                        self.got.extend_from_slice(buf.filled());
                    }
                    if matches!(seen, Seen::Other) || self.got.len() >= ROOM {
                        return Poll::Ready(Ok(None));
                    }
                }
            }
        }
    }

    /// Has hyper send a request; or, where `sent` bytes are those of this request, read its answer.
    async fn speak(&mut self, request: &mut Request<RequestBody>, limit: &Limit<'_>, sent: usize) -> Result<Answer, Failure> {
        if let Way::Plain(_) = self.way
            && let Way::Plain(stream) = std::mem::replace(&mut self.way, Way::Closed)
        {
            let read = Bytes::from(std::mem::take(&mut self.got));
            self.way = Way::Spoken(Spoken::new(stream, sent, read).await.map_err(Failure::broken)?);
        }
        let Way::Spoken(spoken) = &mut self.way else { return Err(Failure::Unsent) };
        let response = spoken.exchange(request, limit).await.inspect_err(|_| self.is_odd = false)?;
        self.is_odd = response.body().size_hint().exact().is_none();
        Ok(Answer::Spoken(response))
    }

    /// Leaves hyper, which is at rest.
    fn fall_silent(&mut self) -> Result<(), Failure> {
        if let Way::Spoken(spoken) = std::mem::replace(&mut self.way, Way::Closed)
            && let Some(stream) = spoken.into_stream()
        {
            self.way = Way::Plain(stream);
            return Ok(());
        }
        Err(Failure::Unsent)
    }
}
