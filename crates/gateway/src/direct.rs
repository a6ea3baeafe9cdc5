//! A client's connection as it mostly is: requests without a body, one after the other, and answers that are there whole.
//!
//! For: reading the one and writing the other with nothing in between. Not for: any other request or answer; hyper takes the connection over with
//! what was read of it, and keeps it. Always: lines and fields are found by hyper's own parser, and what they say is judged here only where it is
//! the usual to the letter, so that no two readers differ about it.

use std::future::{Future as _, poll_fn};
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use httparse::Status;
use insula_http::observe::Observed;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::body::Body;
use crate::connection::Peer;
use crate::scratch::{self, FIELDS};
use crate::upstream::Resumed;
use crate::watch::{Watch, Watched};
use crate::worker::Worker;
use crate::{fields, pipeline};

/// What is read at once, and how long a head may be that is read here.
const ROOM: usize = 8 << 10;

/// What hyper reads where the answer is there already: it asks for as much as the request that was read here, a body if there is one.
const ASKED: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// What is left for hyper.
pub(crate) struct Rest {
    pub(crate) stream: Resumed,
    /// To the first request that it reads.
    pub(crate) answer: Option<Response<Observed<Body>>>,
}

/// Serves what is usual. Nothing is left where the connection is at its end.
pub(crate) async fn serve(worker: &Rc<Worker>, stream: TcpStream, peer: &Rc<Peer>, watch: &Arc<Watch>) -> Option<Rest> {
    let most = worker.shared.config.limits.headers.min(FIELDS);
    let mut line = Line { io: Watched::new(stream, Arc::clone(watch)), got: Vec::new() };
    loop {
        let head = match line.next(worker, watch, most).await {
            Next::Request(head) => head,
            Next::Odd => return Some(line.rest(None)),
            Next::Gone => return None,
        };
        let response = {
            // What it takes is there while it is under way, and not with each connection that waits.
            let mut answer = Box::pin(pipeline::handle_direct(worker, peer, watch, head));
            poll_fn(|cx| {
                watch.register(cx);
                if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Some(response));
                }
                if line.is_gone(cx) || watch.is_lost() { Poll::Ready(None) } else { Poll::Pending }
            })
            .await?
        };
        let mut out = scratch::bytes();
        if !lay(&response, &worker.date.borrow(), &mut out) {
            return Some(line.rest(Some(response)));
        }
        let (head, mut body) = response.into_parts();
        scratch::give_back_fields(head.headers);
        if !line.send(&out, watch).await {
            return None;
        }
        body.is_with_client();
        drop(body);
        scratch::give_back_bytes(out);
    }
}

/// What comes next on a connection.
#[expect(clippy::large_enum_variant, reason = "a box for each request would be more")]
enum Next {
    Request(Parts),
    Odd,
    Gone,
}

struct Line {
    io: Watched<TcpStream>,
    /// Has come, and is not read yet: hardly ever anything.
    got: Vec<u8>,
}

impl Line {
    async fn next(&mut self, worker: &Worker, watch: &Watch, most: usize) -> Next {
        poll_fn(|cx| {
            watch.register(cx);
            if !self.got.is_empty() {
                return Poll::Ready(read(&self.got, most).map_or(Next::Odd, |(head, end)| {
                    // Mostly all: nothing is kept for the next time.
                    if end == self.got.len() {
                        self.got = Vec::new()
                    } else {
                        drop(self.got.drain(..end))
                    }
                    Next::Request(head)
                }));
            }
            if watch.is_lost() {
                return Poll::Ready(Next::Gone);
            }
            // hyper says goodbye so that a request that crosses with it does no harm.
            if worker.has_lingered() {
                return Poll::Ready(Next::Odd);
            }
            let mut room = [const { MaybeUninit::uninit() }; ROOM];
            let mut buf = ReadBuf::uninit(&mut room);
            if std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)).is_err() || buf.filled().is_empty() {
                return Poll::Ready(Next::Gone);
            }
            let head = read(buf.filled(), most);
            self.got.extend_from_slice(&buf.filled()[head.as_ref().map_or(0, |(_, end)| *end)..]);
            Poll::Ready(head.map_or(Next::Odd, |(head, _)| Next::Request(head)))
        })
        .await
    }

    /// Looks whether the client is still there, while its answer is on its way; not behind what it has sent meanwhile.
    fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.got.is_empty() {
            return false;
        }
        let mut room = [const { MaybeUninit::uninit() }; ROOM];
        let mut buf = ReadBuf::uninit(&mut room);
        match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => {
                self.got.extend_from_slice(buf.filled());
                self.got.is_empty()
            }
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Whether the client has taken all of it.
    async fn send(&mut self, bytes: &[u8], watch: &Watch) -> bool {
        let mut written = 0;
        poll_fn(|cx| {
            watch.register(cx);
            while written < bytes.len() {
                match Pin::new(&mut self.io).poll_write(cx, &bytes[written..]) {
                    Poll::Ready(Ok(len)) if len > 0 => written += len,
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending if watch.is_lost() => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(true)
        })
        .await
    }

    fn rest(self, answer: Option<Response<Observed<Body>>>) -> Rest {
        let mut read = self.got;
        if answer.is_some() {
            read.splice(0..0, ASKED.iter().copied());
        }
        Rest { stream: Resumed::new(self.io.into_inner(), 0, Bytes::from(read)), answer }
    }
}

/// Reads a head; and its length. Nothing when it is not whole, or not the usual.
fn read(bytes: &[u8], most: usize) -> Option<(Parts, usize)> {
    let (mut head, mut found) = (httparse::Request::new(&mut []), [const { MaybeUninit::uninit() }; FIELDS]);
    let Ok(Status::Complete(end)) = head.parse_with_uninit_headers(bytes, &mut found) else { return None };
    let target = head.path?;
    if head.version != Some(1) || head.method != Some("GET") || !target.starts_with('/') || head.headers.len() > most {
        return None;
    }
    let uri = Uri::from_maybe_shared(Bytes::copy_from_slice(target.as_bytes())).ok()?;
    let mut fields = scratch::fields();
    for field in head.headers.iter() {
        let (name, value) = fields::read(field)?;
        let is_usual = match name {
            CONNECTION => value.as_bytes().eq_ignore_ascii_case(b"keep-alive"),
            CONTENT_LENGTH | TRANSFER_ENCODING | UPGRADE | EXPECT | TE => false,
            _ => true,
        };
        if !is_usual {
            return None;
        }
        fields.append(name, value);
    }
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (Method::GET, uri, fields);
    Some((request.into_parts().0, end))
}

/// Lays an answer into `out` as hyper would; or leaves it to hyper, where it is not there whole, or says something of the connection.
fn lay(response: &Response<Observed<Body>>, date: &str, out: &mut Vec<u8>) -> bool {
    let (status, headers) = (response.status(), response.headers());
    let Body::Full(body) = response.body().get_ref() else { return false };
    let body = body.as_deref().unwrap_or_default();
    let Some(reason) = status.canonical_reason() else { return false };
    // Neither a body nor a length (RFC 9110, section 8.6): where one has either, somebody is mistaken.
    let is_bare = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    if status.is_informational() || is_bare && !body.is_empty() {
        return false;
    }
    let (mut has_length, mut has_date) = (is_bare, false);
    for (name, value) in headers {
        match *name {
            CONTENT_LENGTH if !has_length && is_number(value.as_bytes(), body.len()) => has_length = true,
            CONTENT_LENGTH | CONNECTION | TRANSFER_ENCODING => return false,
            DATE => has_date = true,
            _ => {}
        }
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    fields::write(headers, out);
    // Writing to a Vec cannot fail.
    if !has_length {
        let _ = write!(out, "content-length: {}\r\n", body.len());
    }
    if !has_date {
        let _ = write!(out, "date: {date}\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    true
}

/// Digits alone, that say so much.
fn is_number(digits: &[u8], number: usize) -> bool {
    digits.iter().all(u8::is_ascii_digit) && std::str::from_utf8(digits).is_ok_and(|text| text.parse() == Ok(number))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use insula_http::observe::Observation;
    use insula_telemetry::Senses;

    use super::*;

    fn read_text(text: &str) -> Option<(Parts, usize)> {
        read(text.as_bytes(), FIELDS)
    }

    #[test]
    fn a_usual_request_is_read() {
        let text = "GET /a?b=c HTTP/1.1\r\nHost: acme.localhost\r\nconnection: Keep-Alive\r\ncookie: a\r\ncookie: b\r\n\r\n";
        let (head, end) = read_text(&format!("{text}GET /next")).unwrap();
        assert_eq!((head.method, head.uri.to_string().as_str(), end), (Method::GET, "/a?b=c", text.len()));
        let fields: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let wanted: [(&str, &[u8]); 4] =
            [("host", b"acme.localhost"), ("connection", b"Keep-Alive"), ("cookie", b"a"), ("cookie", b"b")];
        assert_eq!((fields.len(), wanted.iter().all(|one| fields.contains(one))), (4, true), "{fields:?}");
        for end in 0..text.len() {
            assert!(read_text(&text[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn whatever_is_not_usual_is_left_to_hyper() {
        let lines = [
            "POST / HTTP/1.1",
            "HEAD / HTTP/1.1",
            "get / HTTP/1.1",
            "GET / HTTP/1.0",
            "GET / HTTP/1.2",
            "GET / http/1.1",
            "GET  / HTTP/1.1",
            "GET http://acme.localhost/ HTTP/1.1",
            "GET * HTTP/1.1",
            "GET acme HTTP/1.1",
            "GET /a b HTTP/1.1",
            "CONNECT acme:80 HTTP/1.1",
            "GET /\u{7f} HTTP/1.1",
            "GET /",
            " GET / HTTP/1.1",
        ];
        for line in lines {
            assert!(read_text(&format!("{line}\r\nhost: a\r\n\r\n")).is_none(), "{line:?}");
        }
        let fields = [
            "content-length: 0",
            "content-length: 1",
            "transfer-encoding: chunked",
            "Transfer-Encoding: identity",
            "expect: 100-continue",
            "upgrade: websocket",
            "te: trailers",
            "connection: close",
            "connection: upgrade",
            "connection: keep-alive, x",
            "connection:",
            "a b: c",
            "a : b",
            ": b",
            "a",
            "a: b\r\n c",
            "a: b\0c",
            "a: b\rc",
        ];
        for field in fields {
            assert!(read_text(&format!("GET / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n")).is_none(), "{field:?}");
        }
        let many: String = (0..=FIELDS).map(|n| format!("x-{n}: y\r\n")).collect();
        assert!(read_text(&format!("GET / HTTP/1.1\r\n{many}\r\n")).is_none());
    }

    fn laid(status: u16, fields: &[(&'static str, &'static str)], body: Body) -> Option<String> {
        let seen = Observation::begin(&Senses::default(), &Method::GET, &Uri::from_static("/"), HeaderValue::from_static("1"));
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let mut out = Vec::new();
        lay(&seen.answered(response), "now", &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn an_answer_says_what_is_needed() {
        let full = || Body::full(Bytes::from_static(b"ok"));
        let bare = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ndate: now\r\n\r\nok";
        assert_eq!(laid(200, &[], full()).as_deref(), Some(bare));
        let own = "HTTP/1.1 404 Not Found\r\ndate: then\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(laid(404, &[("date", "then"), ("content-length", "2")], full()).as_deref(), Some(own));
        let none = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        assert_eq!(laid(200, &[], Body::Full(None)).as_deref(), Some(none));
        let bare = "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ndate: now\r\n\r\n";
        assert_eq!(laid(304, &[("etag", "\"1\"")], Body::Full(None)).as_deref(), Some(bare));
        assert_eq!(laid(204, &[], Body::Full(None)).as_deref(), Some("HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n"));
        assert_eq!(laid(304, &[("content-length", "0")], Body::Full(None)), None);
        for (status, fields) in [
            (204, &[][..]),
            (304, &[]),
            (101, &[]),
            (299, &[]),
            (200, &[("content-length", "3")]),
            (200, &[("content-length", "+2")]),
            (200, &[("content-length", "2"), ("content-length", "2")]),
            (200, &[("connection", "close")]),
            (200, &[("transfer-encoding", "chunked")]),
        ] {
            assert_eq!(laid(status, fields, full()), None, "{status} {fields:?}");
        }
    }
}
