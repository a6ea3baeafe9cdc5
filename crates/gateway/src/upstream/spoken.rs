//! A connection to an application as hyper speaks on it: requests with bodies, answers of every kind.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::link::{Failure, Limit, is_harmless};
use super::measure::{Measure, Measured};
use super::resumed::Resumed;
use crate::body::RequestBody;
use crate::gather::Gathered;

/// See the module.
pub(super) struct Spoken {
    sender: SendRequest<RequestBody>,
    conn: Connection<TokioIo<Measured<Gathered<Resumed>>>, RequestBody>,
    measure: Measure,
    user: Arc<User>,
    /// `user`, as the connection knows it: always the same.
    waker: Waker,
    is_over: bool,
}

/// Who waits for what happens on a connection.
#[derive(Default)]
struct User {
    waker: AtomicWaker,
    /// He is at it just now: what he moves himself need not wake him.
    is_at_it: AtomicBool,
}

impl Wake for User {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_at_it.load(Ordering::Relaxed) {
            self.waker.wake();
        }
    }
}

impl Spoken {
    /// On a connection that nothing stands on but a request of `sent` bytes, and the first bytes of its answer.
    pub(super) async fn new(stream: TcpStream, sent: usize, read: Bytes) -> Result<Box<Self>, hyper::Error> {
        let measure = Measure::default();
        let stream = Measured::new(Gathered(Resumed::new(stream, sent, read)), measure.clone());
        let (sender, conn) = Builder::new().handshake(TokioIo::new(stream)).await?;
        let user = Arc::new(User::default());
        let waker = Waker::from(Arc::clone(&user));
        Ok(Box::new(Self { sender, conn, measure, user, waker, is_over: false }))
    }

    /// The connection alone, when nothing is left of what was spoken.
    pub(super) fn into_stream(self) -> Option<TcpStream> {
        let parts = self.conn.into_parts();
        parts.io.into_inner().into_inner().0.into_stream().filter(|_| parts.read_buf.is_empty())
    }

    /// Moves what can be moved. Whoever `cx` is woke by hears when there is more.
    pub(super) fn drive(&mut self, cx: &Context<'_>) {
        self.user.waker.register(cx.waker());
        if !self.is_over && Pin::new(&mut self.conn).poll(&mut Context::from_waker(&self.waker)).is_ready() {
            self.is_over = true;
        }
    }

    /// Reads from a body that this connection brings. Only what was driven before can be in it, so nobody is to be woken; and that there is room
    /// now, which the body tells the connection, is seen when it is driven next.
    pub(super) fn take(&self, body: &mut Incoming) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.user.is_at_it.store(true, Ordering::Relaxed);
        let polled = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
        self.user.is_at_it.store(false, Ordering::Relaxed);
        polled
    }

    /// Whether it can carry a request now. Looks at the socket, as far as the runtime knows of it.
    pub(super) fn is_usable(&mut self) -> bool {
        // Nobody is to be woken: whoever uses it drives it himself.
        self.drive(&Context::from_waker(Waker::noop()));
        !self.is_over && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer. The request comes back where it was not sent, or may be sent again.
    pub(super) async fn exchange(
        &mut self,
        request: &mut Request<RequestBody>,
        limit: &Limit<'_>,
    ) -> Result<Response<Incoming>, Failure> {
        let spare = spare(request);
        self.measure.begin();
        let mut answer = pin!(self.sender.try_send_request(std::mem::take(request)));
        let outcome = std::future::poll_fn(|cx| {
            self.drive(cx);
            // Only what was driven just now can have brought it: there is nobody to wake.
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if limit.is_over() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        let outcome = outcome.await;
        self.measure.end();
        match outcome {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => match (error.take_message(), spare) {
                (Some(whole), _) => {
                    *request = whole;
                    Err(Failure::Unsent)
                }
                (None, Some(spare)) => {
                    *request = spare;
                    Err(Failure::Broken { error: error.into_error().into(), is_harmless: true })
                }
                (None, None) => Err(Failure::Broken { error: error.into_error().into(), is_harmless: false }),
            },
            None => Err(Failure::Timeout),
        }
    }
}

/// The same request once more, where sending it twice is harmless.
fn spare(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    is_harmless(request).then(|| {
        let mut spare = Request::new(RequestBody::Empty);
        *spare.method_mut() = request.method().clone();
        *spare.uri_mut() = request.uri().clone();
        *spare.headers_mut() = request.headers().clone();
        spare
    })
}
