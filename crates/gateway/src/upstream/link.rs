//! One connection to an application, driven by the request that uses it.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::{BoxError, RequestBody};
use crate::gather::Gathered;
use crate::upstream::{Endpoint, Measure, Measured};
use crate::watch::{Phase, Watch};
use insula_http::admit::{Permit, Reading};

/// A connection that serves one request at a time.
pub(crate) struct Link {
    sender: SendRequest<RequestBody>,
    conn: Connection<TokioIo<Measured<Gathered<TcpStream>>>, RequestBody>,
    measure: Measure,
    user: Arc<User>,
    /// `user`, as the connection knows it: always the same.
    waker: Waker,
    is_over: bool,
    /// Whether it has carried an answer before: then the application may have closed it meanwhile.
    pub(crate) is_used: bool,
    /// When it was last given back, by the worker's clock.
    pub(crate) idle_since: u64,
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

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection was gone before a byte of the request was on it; the request is whole.
    Unsent(Box<Request<RequestBody>>),
    /// It broke after that; nobody knows what the application has done.
    Broken(hyper::Error),
    /// The time is over.
    Timeout,
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestBody")
    }
}

impl Link {
    /// Speaks HTTP/1.1 on a new connection.
    pub(crate) async fn new(stream: TcpStream) -> Result<Box<Self>, hyper::Error> {
        let measure = Measure::default();
        let (sender, conn) = Builder::new().handshake(TokioIo::new(Measured::new(Gathered(stream), measure.clone()))).await?;
        let user = Arc::new(User::default());
        let waker = Waker::from(Arc::clone(&user));
        Ok(Box::new(Self { sender, conn, measure, user, waker, is_over: false, is_used: false, idle_since: 0 }))
    }

    /// Moves what can be moved. Whoever `cx` is woke by hears when there is more.
    fn drive(&mut self, cx: &Context<'_>) {
        self.user.waker.register(cx.waker());
        if !self.is_over && Pin::new(&mut self.conn).poll(&mut Context::from_waker(&self.waker)).is_ready() {
            self.is_over = true;
        }
    }

    /// Reads from a body that this connection brings. Only what was driven before can be in it, so nobody is to be woken; and that there is room
    /// now, which the body tells the connection, is seen when it is driven next.
    fn take(&self, body: &mut Incoming) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.user.is_at_it.store(true, Ordering::Relaxed);
        let polled = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
        self.user.is_at_it.store(false, Ordering::Relaxed);
        polled
    }

    /// Whether it can carry a request now. Looks at the socket, as far as the runtime knows of it.
    pub(crate) fn is_usable(&mut self) -> bool {
        // Nobody is to be woken: whoever uses it drives it himself.
        self.drive(&Context::from_waker(Waker::noop()));
        !self.is_over && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer, as long as the watch allows.
    pub(crate) async fn send(&mut self, request: Request<RequestBody>, watch: &Watch) -> Result<Response<Incoming>, Failure> {
        self.exchange(request, || watch.is_over()).await
    }

    /// Sends a request of our own; the status of its answer.
    pub(crate) async fn ask(&mut self, request: Request<RequestBody>) -> Option<StatusCode> {
        self.exchange(request, || false).await.ok().map(|response| response.status())
    }

    async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        is_over: impl Fn() -> bool,
    ) -> Result<Response<Incoming>, Failure> {
        self.measure.begin();
        let mut answer = pin!(self.sender.try_send_request(request));
        let outcome = std::future::poll_fn(|cx| {
            self.drive(cx);
            // Only what was driven just now can have brought it: there is nobody to wake.
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if is_over() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        let outcome = outcome.await;
        self.measure.end();
        match outcome {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => match error.take_message() {
                Some(request) => Err(Failure::Unsent(Box::new(request))),
                None => Err(Failure::Broken(error.into_error())),
            },
            None => Err(Failure::Timeout),
        }
    }
}

/// An answer's body, with the connection that brings it.
pub(crate) struct Streaming {
    body: Incoming,
    /// `None` once it is given back, or given up.
    link: Option<Box<Link>>,
    endpoint: Rc<Endpoint>,
    watch: Arc<Watch>,
    /// The right to be at work, until the end.
    permit: Option<Reading>,
    /// Resolves when no more of it may be told.
    until: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Streaming {
    /// Breaks off when `until` resolves.
    pub(crate) fn ends_with(&mut self, until: impl Future<Output = ()> + 'static) {
        self.until = Some(Box::pin(until));
    }

    /// Keeps the right to be at work until the last byte.
    pub(crate) fn hold(&mut self, permit: Permit) {
        self.permit = (!self.is_end()).then_some(Reading::new(permit));
    }

    pub(crate) fn new(body: Incoming, link: Box<Link>, endpoint: Rc<Endpoint>, watch: Arc<Watch>) -> Self {
        let mut this = Self { body, link: Some(link), endpoint, watch, permit: None, until: None };
        this.give_back_at_end();
        this
    }

    /// A body whose connection has a task of its own.
    pub(crate) const fn detached(body: Incoming, endpoint: Rc<Endpoint>, watch: Arc<Watch>) -> Self {
        Self { body, link: None, endpoint, watch, permit: None, until: None }
    }

    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream() {
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
        let polled = match &mut self.link {
            Some(link) => match link.take(&mut self.body) {
                Poll::Pending => {
                    link.drive(cx);
                    link.take(&mut self.body)
                }
                ready => ready,
            },
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        match polled {
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
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.give_back();
                Poll::Ready(None)
            }
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
