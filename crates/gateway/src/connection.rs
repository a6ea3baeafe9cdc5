//! A client's connection, from its first byte to its end.
//!
//! Always: it is closed when its watch says that its time is over. Draining, an HTTP/1 client is told `Connection: close` on the next
//! answer and given a moment to ask for it: closing an idle connection at once would cross with a request on its way.

use std::cell::Cell;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::Either;
use http::{HeaderValue, Response};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use insula_http::observe::Observed;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::afterwards::{Afterwards, Kept};
use crate::body::Body;
use crate::config::ms;
use crate::direct::{self, Rest};
use crate::listener::Scheme;
use crate::pipeline;
use crate::streams::Streams;
use crate::tls;
use crate::watch::{Watch, Watched};
use crate::worker::Worker;

/// Who is at the other end.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its address, as `X-Forwarded-For` has it.
    pub(crate) address: HeaderValue,
    /// `http` or `https`.
    pub(crate) scheme: HeaderValue,
    /// A proxy whose word on its clients is believed.
    pub(crate) is_trusted: bool,
}

impl Peer {
    pub(crate) fn new(from: SocketAddr, is_trusted: bool, scheme: Scheme) -> Self {
        let address = from.ip().to_canonical().to_string();
        // An address is made of digits, letters, dots and colons.
        let address = HeaderValue::from_str(&address).unwrap_or(HeaderValue::from_static("unknown"));
        Self { address, scheme: HeaderValue::from_static(scheme.as_str()), is_trusted }
    }
}

/// How many headers hyper takes unless it is told.
const HYPERS_HEADERS: usize = 100;

/// What an HTTP/2 client says first when it knows that the server speaks it (RFC 9113, section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a clear connection: HTTP/1.1, or HTTP/2 with prior knowledge.
pub(crate) async fn serve(worker: &Rc<Worker>, stream: TcpStream, peer: Rc<Peer>) {
    let watch = worker.watches.watch(worker.shared.config.timeouts);
    let first = tokio::time::timeout(ms(worker.shared.config.timeouts.idle_ms), speaks_h2(&stream));
    match first.await {
        // Boxed: hyper takes ten times as much as a connection that waits.
        Ok(Ok(true)) => Box::pin(h2(worker, stream, peer, watch)).await,
        Ok(Ok(false)) => {
            if let Some(Rest { stream, answer }) = direct::serve(worker, stream, &peer, &watch).await {
                Box::pin(h1(worker, stream, peer, watch, answer)).await;
            }
        }
        // Gone, or never there.
        Ok(Err(_)) | Err(_) => {}
    }
}

/// Serves a connection that begins with a TLS handshake, which also settles the version of HTTP (ALPN, RFC 7301).
pub(crate) async fn serve_tls(worker: &Rc<Worker>, tls: &TlsAcceptor, stream: TcpStream, peer: Rc<Peer>) {
    let stream = match tokio::time::timeout(ms(worker.shared.config.timeouts.header_ms), tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return,
    };
    let watch = worker.watches.watch(worker.shared.config.timeouts);
    match stream.get_ref().1.alpn_protocol() {
        Some(tls::H2) => h2(worker, stream, peer, watch).await,
        _ => h1(worker, stream, peer, watch, None).await,
    }
}

/// Looks at the first bytes without taking them. `PRI` is no method of HTTP/1, so four bytes decide.
async fn speaks_h2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0; 4];
    loop {
        let n = stream.peek(&mut first).await?;
        if n == 0 || first[..n] != H2_PREFACE[..n] {
            return Ok(false);
        }
        if n == first.len() {
            return Ok(true);
        }
        // A client that sends byte by byte: the peek above would answer the same until more is there.
        tokio::time::sleep(ms(5)).await;
    }
}

/// `answer` is the one to the first request.
async fn h1<S>(worker: &Rc<Worker>, stream: S, peer: Rc<Peer>, watch: Arc<Watch>, answer: Option<Response<Observed<Body>>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = worker.shared.config.limits;
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&watch)));
    let afterwards = Rc::new(Afterwards::default());
    let answer = Cell::new(answer);
    let service = service_fn(|request| {
        if let Some(answer) = answer.take() {
            pipeline::await_client(&watch, Some(answer.body().get_ref()));
            return Either::Left(ready(Ok(answer.map(|body| Kept::new(body, Rc::clone(&afterwards))))));
        }
        let at = (Arc::clone(&watch), Rc::clone(&afterwards));
        Either::Right(pipeline::handle(Rc::clone(worker), Rc::clone(&peer), at, request))
    });
    let mut http = http1::Builder::new();
    // Not `pipeline_flush`: with it, hyper 1.12 loses the last answer of a connection that has more bytes waiting.
    http.max_buf_size(limits.header_bytes.max(8 << 10));
    // Told its own default, hyper would write into each place for a header before it reads one.
    if limits.headers != HYPERS_HEADERS {
        http.max_headers(limits.headers);
    }
    let mut conn = std::pin::pin!(http.serve_connection(io, service).with_upgrades());
    let mut is_ending = false;
    std::future::poll_fn(|cx| {
        watch.register(cx);
        let mut outcome = conn.as_mut().poll(cx);
        // It has read what there is: told before, it would close over a request, or over an answer that it was handed.
        if outcome.is_pending() && !is_ending && worker.has_lingered() {
            is_ending = true;
            conn.as_mut().graceful_shutdown();
            outcome = conn.as_mut().poll(cx);
        }
        if !watch.has_more_to_write() {
            afterwards.settle();
        }
        // Dropped with what it holds: an error has been told to whom it concerns by then.
        if outcome.is_ready() || watch.is_lost() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

async fn h2<S>(worker: &Rc<Worker>, stream: S, peer: Rc<Peer>, watch: Arc<Watch>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let config = &worker.shared.config;
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&watch)));
    // Each stream has deadlines of its own; the connection's are about bytes that nobody takes, and about silence.
    let streams = Streams::new(Arc::clone(&watch));
    let service = service_fn(|request| {
        let of_stream = worker.watches.watch(config.timeouts);
        streams.begin(Arc::clone(&of_stream));
        pipeline::handle_stream(Rc::clone(worker), Rc::clone(&peer), of_stream, request)
    });
    let mut http = http2::Builder::new(streams.clone());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(config.limits.streams)
        .max_header_list_size(u32::try_from(config.limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(ms(config.timeouts.idle_ms / 2))
        .keep_alive_timeout(ms(config.timeouts.send_ms));
    let mut conn = std::pin::pin!(http.serve_connection(io, service));
    let mut is_ending = false;
    std::future::poll_fn(|cx| {
        watch.register(cx);
        if !is_ending && worker.is_draining() {
            is_ending = true;
            // Tells the client which requests will still be answered (RFC 9113, section 6.8).
            conn.as_mut().graceful_shutdown();
        }
        let outcome = conn.as_mut().poll(cx);
        if outcome.is_ready() || watch.is_lost() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// A future that is polled together with a watch's waker: for whoever waits in another task than the connection's.
pub(crate) async fn watched<F: Future>(watch: &Watch, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        watch.register(cx);
        Pin::as_mut(&mut future).poll(cx)
    })
    .await
}
