//! The exchange as it mostly is: a request without a body, and an answer that says how long it is.
//!
//! For: writing the one and reading the other with nothing in between. Not for: any other answer; hyper reads those, from their first byte on
//! ([`super::spoken`]). Always: lines and fields are found by hyper's own parser, and what they say is judged here only where it is the usual to the
//! letter, so that no two readers differ about it.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use httparse::{ParserConfig, Status};

use crate::body::RequestBody;
use crate::fields;
use crate::scratch::{self, FIELDS};

/// What of an answer is looked at here, and how long a request may be that is written here.
pub(super) const ROOM: usize = 8 << 10;

/// Digits of a length: more than anybody has bytes.
const DIGITS: usize = 18;

/// Whether a request can be written here.
pub(super) fn is_plain(request: &Request<RequestBody>) -> bool {
    matches!(request.body(), RequestBody::Empty)
        && request.version() == Version::HTTP_11
        && request.uri().authority().is_none()
        && *request.method() != Method::CONNECT
}

/// Lays a request's head into `out`, byte for byte as hyper would. It has no `Transfer-Encoding`: that ends at the gateway.
pub(super) fn write(request: &Request<RequestBody>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.uri().path_and_query().map_or("/", |path| path.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields::write(request.headers(), out);
    out.extend_from_slice(b"\r\n");
}

/// What the bytes are that have come.
#[derive(Debug)]
pub(super) enum Seen {
    /// A head that is usual so far, and not whole.
    Part,
    /// A whole head, and what has come of its body.
    Head {
        /// Without a body.
        response: Response<()>,
        /// The first of it.
        body: Bytes,
        /// Bytes that are still to come.
        left: u64,
        /// More has come than the answer has: nobody knows what it is, so nothing else may be read from there.
        is_astray: bool,
    },
    /// Not for here.
    Other,
}

/// Reads an answer to a request, one to `HEAD` or not.
pub(super) fn read(bytes: &[u8], is_to_head: bool) -> Seen {
    let (mut head, mut found) = (httparse::Response::new(&mut []), [const { MaybeUninit::uninit() }; FIELDS]);
    // As strict as hyper has it.
    let end = match ParserConfig::default().parse_response_with_uninit_headers(&mut head, bytes, &mut found) {
        Ok(Status::Complete(end)) => end,
        Ok(Status::Partial) => return Seen::Part,
        Err(_) => return Seen::Other,
    };
    let Some(status) = status(&head) else { return Seen::Other };
    let (mut length, mut fields) = (None, scratch::fields());
    for field in head.headers.iter() {
        let Some(name) = fields::name(field.name.as_bytes()) else { return Seen::Other };
        if name == CONNECTION {
            // Any other word is about what happens here afterwards. This one is for us alone.
            if field.value.eq_ignore_ascii_case(b"keep-alive") {
                continue;
            }
            return Seen::Other;
        }
        let Ok(value) = HeaderValue::from_bytes(field.value) else { return Seen::Other };
        if name == CONTENT_LENGTH {
            match number(field.value) {
                Some(number) if length.is_none() => length = Some(number),
                _ => return Seen::Other,
            }
        } else if name == TRANSFER_ENCODING {
            return Seen::Other;
        }
        fields.append(name, value);
    }
    let is_bare = is_to_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let Some(length) = (if is_bare { Some(0) } else { length }) else { return Seen::Other };
    let (rest, mut response) = (&bytes[end..], Response::new(()));
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    let here = usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len()));
    let body = Bytes::copy_from_slice(&rest[..here]);
    Seen::Head { response, body, left: length - here as u64, is_astray: here < rest.len() }
}

/// The status of a final answer that says of it what everybody says.
fn status(head: &httparse::Response<'_, '_>) -> Option<StatusCode> {
    let status = StatusCode::from_u16(head.code?).ok()?;
    let is_usual = head.version == Some(1) && !status.is_informational() && status.canonical_reason() == head.reason;
    is_usual.then_some(status)
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.len() <= DIGITS && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Seen {
        read(text.as_bytes(), false)
    }

    const OK: &str = "HTTP/1.1 200 OK\r\n";

    #[test]
    fn a_usual_answer_is_read() {
        let text = format!(
            "{OK}Server:  nginx\t\r\nconnection: Keep-Alive\r\nset-cookie: a\r\nContent-Length: 3\r\nset-cookie: b\r\n\r\nok\n"
        );
        for end in 0..text.len() {
            let seen = seen(&text[..end]);
            let has_head = end >= text.len() - 3;
            assert!(matches!(seen, Seen::Part) != has_head, "{end}: {seen:?}");
        }
        let Seen::Head { response, body, left, is_astray } = seen(&text) else { panic!("an answer") };
        assert_eq!((response.status().as_u16(), &body[..], left, is_astray), (200, &b"ok\n"[..], 0, false));
        let fields: Vec<_> = response.headers().iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let wanted: [(&str, &[u8]); 4] =
            [("server", b"nginx"), ("set-cookie", b"a"), ("set-cookie", b"b"), ("content-length", b"3")];
        assert_eq!((fields.len(), wanted.iter().all(|one| fields.contains(one))), (4, true), "{fields:?}");
    }

    #[test]
    fn how_long_a_body_is_is_as_the_standard_has_it() {
        let read = |head: &str, is_to_head: bool| match read(head.as_bytes(), is_to_head) {
            Seen::Head { body, left, is_astray, .. } => (body.len(), left, is_astray),
            other => panic!("{other:?}"),
        };
        assert_eq!(read(&format!("{OK}content-length: 5\r\n\r\nabc"), false), (3, 2, false));
        assert_eq!(read(&format!("{OK}content-length: 2\r\n\r\nabc"), false), (2, 0, true));
        assert_eq!(read(&format!("{OK}content-length: 0\r\n\r\n"), false), (0, 0, false));
        assert_eq!(read(&format!("{OK}content-length: 5\r\n\r\n"), true), (0, 0, false));
        assert_eq!(read(&format!("{OK}\r\n"), true), (0, 0, false));
        assert_eq!(read("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", false), (0, 0, false));
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n", false), (0, 0, false));
    }

    #[test]
    fn whatever_is_not_usual_is_left_to_the_other_reader() {
        let odd = [
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 Fine\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1  200 OK\r\ncontent-length: 0\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
        ];
        for text in odd {
            assert!(matches!(seen(text), Seen::Other), "{text:?}");
        }
        let odd = [
            "",
            "content-length: 1\r\ncontent-length: 1\r\n",
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\n",
            "content-length: +1\r\n",
            "content-length: 1, 1\r\n",
            "content-length:\r\n",
            "content-length: 99999999999999999999\r\n",
            "content-length: 1\r\nconnection: close\r\n",
            "content-length: 1\r\nconnection: keep-alive, x\r\n",
            "content-length: 1\r\n folded: x\r\n",
            "content-length: 1\r\nx : y\r\n",
            "content-length: 1\r\nx\r\n",
            "content-length: 1\r\nx: a\rb\r\n",
            "content-length: 1\r\nx: a\0b\r\n",
            "content-length: 1\r\n: y\r\n",
        ];
        for fields in odd {
            let seen = seen(&format!("{OK}{fields}\r\nx"));
            assert!(matches!(seen, Seen::Other), "{fields:?}: {seen:?}");
        }
        let many: String = (0..=FIELDS).map(|n| format!("x-{n}: y\r\n")).collect();
        assert!(matches!(seen(&format!("{OK}content-length: 0\r\n{many}\r\n")), Seen::Other));
    }
}
