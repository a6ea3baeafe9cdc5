//! Connections that become something else: WebSocket, and what the settings allow beside it (RFC 9110, section 7.8).
//!
//! Always: only a protocol that the settings name is offered to upstream: through any other tunnel (`h2c` above all) requests would
//! pass by whatever the pipeline checks. A tunnel has a connection to upstream of its own, and ends when nothing has moved for a while.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1::Builder;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use insula_http::admit::{Outcome, Permit};
use tokio::net::TcpStream;

use crate::body::{Body, RequestBody};
use crate::connection::watched;
use crate::forward::{self, Call, Failed};
use crate::standing::Standing;
use crate::upstream::{Failure, Measure, Measured, Streaming};
use crate::watch::Watch;
use crate::worker::Worker;

/// A client's wish, and the way to its bytes.
pub(crate) struct Wish {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Wish {
    /// The wish of a request, if it has one that is allowed.
    pub(crate) fn of(request: &mut Request<Incoming>, allowed: &[String]) -> Option<Self> {
        let protocol = asked_for(request.headers())?.clone();
        let is_allowed = allowed.iter().any(|name| protocol.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
        is_allowed.then(|| Self { protocol, client: hyper::upgrade::on(request) })
    }

    /// Writes it into a request for upstream.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }
}

fn asked_for(headers: &HeaderMap) -> Option<&HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let named = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
    };
    headers.get_all(CONNECTION).iter().any(named).then_some(protocol)
}

/// Asks upstream. When it agrees, the two connections are one tunnel from the answer on.
pub(crate) async fn send(
    call: &Call<'_>,
    wish: Wish,
    mut request: Request<RequestBody>,
    permit: Option<Permit>,
) -> Result<Response<Body>, Failed> {
    wish.write(request.headers_mut());
    let failed = |failed: Failed, mut permit: Option<Permit>| {
        if let Some(permit) = &mut permit {
            permit.finish(failed.outcome);
        }
        Err(failed)
    };
    let Some(turn) = call.cell.pick() else { return failed(Failed::away(), permit) };
    let stream = match turn.endpoint.dial().await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(endpoint = turn.endpoint.authority(), %error, "cannot connect");
            turn.failed();
            return failed(Failed::away(), permit);
        }
    };
    match ask(stream, request, call.watch).await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            turn.sound();
            Ok(join(call, wish, response, permit))
        }
        Ok(response) => {
            let endpoint = turn.sound();
            let watch = Arc::clone(call.watch);
            let outcome = Outcome::of_answer(response.status(), response.headers());
            Ok(response.map(|body| {
                let mut stream = Streaming::detached(body, endpoint, watch);
                if let Some(mut permit) = permit {
                    permit.finish(outcome);
                    stream.hold(permit);
                }
                Body::Stream(Box::new(stream))
            }))
        }
        Err(failure) => failed(forward::blame(failure, call.progress, turn), permit),
    }
}

/// Asks on a connection that has a task of its own: it lives on when the request is answered, and ends when the time for that is over.
async fn ask(stream: TcpStream, request: Request<RequestBody>, watch: &Watch) -> Result<Response<Incoming>, Failure> {
    let measure = Measure::default();
    measure.begin();
    let stream = TokioIo::new(Measured::new(stream, measure.clone()));
    let (mut sender, conn) = Builder::new().handshake(stream).await.map_err(Failure::broken)?;
    tokio::task::spawn_local(conn.with_upgrades());
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Pending if watch.is_over() => Poll::Ready(Err(Failure::Timeout)),
        polled => polled.map_err(Failure::broken),
    });
    watched(watch, answer).await.inspect(|_| measure.end())
}

/// Makes one tunnel of both sides, as soon as the answer is with the client.
fn join(call: &Call<'_>, wish: Wish, mut response: Response<Incoming>, mut permit: Option<Permit>) -> Response<Body> {
    if let Some(permit) = &mut permit {
        permit.finish(Outcome::Sound);
        permit.linger();
    }
    let upstream = hyper::upgrade::on(&mut response);
    let (worker, watch) = (Rc::clone(call.worker), Arc::clone(call.watch));
    let standing = Standing::new(call.tenant, call.credential.as_ref());
    tokio::task::spawn_local(async move {
        let _held = (worker.hold(), permit);
        let ends = futures_util::future::try_join(wish.client, upstream);
        // Not under watch yet: who has the answer to write must hear that its time is over, and a watch wakes one alone.
        tokio::select! {
            tunnelled = ends => match tunnelled {
                Ok((client, upstream)) => tunnel(&worker, client, upstream, &watch, standing).await,
                Err(error) => tracing::debug!(%error, "an upgrade was not carried out"),
            },
            () = worker.shared.shutdown.now() => {}
        }
    });
    let mut answer = Response::new(Body::Full(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    answer
}

/// Carries bytes both ways until one side ends, nothing moves for too long, who asked for it may no longer, or the gateway ends.
async fn tunnel(worker: &Worker, client: Upgraded, upstream: Upgraded, watch: &Watch, standing: Standing) {
    watch.hand_over();
    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
    let mut copy = std::pin::pin!(tokio::io::copy_bidirectional(&mut client, &mut upstream));
    let idle = std::future::poll_fn(|cx| {
        watch.register(cx);
        if watch.is_over() { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::select! {
        _ = &mut copy => {}
        () = idle => {}
        () = standing.ends(&worker.shared.catalog) => {}
        () = worker.shared.shutdown.now() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_wish_needs_both_fields() {
        assert!(asked_for(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])).is_some());
        assert!(asked_for(&map(&[("upgrade", "websocket")])).is_none());
        assert!(asked_for(&map(&[("connection", "upgrade")])).is_none());
    }
}
