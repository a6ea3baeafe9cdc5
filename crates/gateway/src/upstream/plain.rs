//! The exchange as it mostly is: a request without a body, and an answer that says how long it is.
//!
//! For: writing the one and reading the other with nothing in between. Not for: any other answer; hyper reads those, from their first byte on
//! ([`super::spoken`]). Always: what is not the usual to the letter is not judged here, so that no two readers differ about it.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};

use crate::body::RequestBody;

/// What of an answer is looked at here, and how long a request may be that is written here.
pub(super) const ROOM: usize = 8 << 10;

/// Fields of an answer; hyper takes some more.
const FIELDS: usize = 64;

/// `HTTP/1.1 200 OK`: where its parts are.
const VERSION: &[u8] = b"HTTP/1.1 ";
const STATUS: std::ops::Range<usize> = 9..12;

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
    for (name, value) in request.headers() {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.reserve(name.len() + value.len() + 4);
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
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

/// Reads an answer to a request, one to `HEAD` or not, into a map that is empty. Without an answer, the map may be left with anything.
pub(super) fn read(bytes: &[u8], is_to_head: bool, fields: &mut HeaderMap) -> Seen {
    let mut lines = Lines { bytes, at: 0 };
    let status = match lines.next() {
        Line::Whole(from, to) => match status(&bytes[from..to]) {
            Some(status) => status,
            None => return Seen::Other,
        },
        Line::Part => return Seen::Part,
        Line::Odd => return Seen::Other,
    };
    let whole = Bytes::copy_from_slice(bytes);
    let mut length = None;
    loop {
        let (from, to) = match lines.next() {
            Line::Whole(from, to) if from == to => break,
            Line::Whole(from, to) => (from, to),
            Line::Part => return Seen::Part,
            Line::Odd => return Seen::Other,
        };
        let Some((name, value)) = field(&whole, from, to) else { return Seen::Other };
        if name == CONNECTION {
            // Any other word is about what happens here afterwards. This one is for us alone.
            if value.as_bytes().eq_ignore_ascii_case(b"keep-alive") {
                continue;
            }
            return Seen::Other;
        }
        if name == CONTENT_LENGTH {
            match number(value.as_bytes()) {
                Some(number) if length.is_none() => length = Some(number),
                _ => return Seen::Other,
            }
        } else if name == TRANSFER_ENCODING || fields.len() == FIELDS {
            return Seen::Other;
        }
        fields.append(name, value);
    }
    let is_bare = is_to_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let Some(length) = (if is_bare { Some(0) } else { length }) else { return Seen::Other };
    let (rest, mut response) = (whole.len() - lines.at, Response::new(()));
    *response.status_mut() = status;
    *response.headers_mut() = std::mem::take(fields);
    let here = usize::try_from(length).map_or(rest, |length| length.min(rest));
    let body = if here == 0 { Bytes::new() } else { whole.slice(lines.at..lines.at + here) };
    Seen::Head { response, body, left: length - here as u64, is_astray: here < rest }
}

/// The status of a final answer that says of it what everybody says.
fn status(line: &[u8]) -> Option<StatusCode> {
    let rest = line.strip_prefix(VERSION)?;
    let status = StatusCode::from_bytes(line.get(STATUS)?).ok()?;
    let reason = rest.get(STATUS.len()..)?.strip_prefix(b" ")?;
    let is_usual = !status.is_informational() && status.canonical_reason().is_some_and(|usual| usual.as_bytes() == reason);
    is_usual.then_some(status)
}

/// `name: value`, as it lies between two places.
fn field(whole: &Bytes, from: usize, to: usize) -> Option<(HeaderName, HeaderValue)> {
    let line = &whole[from..to];
    let colon = find(line, b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let value = &line[colon + 1..];
    let before = value.iter().take_while(|b| is_space(b)).count();
    let after = value[before..].iter().rev().take_while(|b| is_space(b)).count();
    let value = HeaderValue::from_maybe_shared(whole.slice(from + colon + 1 + before..to - after)).ok()?;
    Some((name, value))
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.len() <= DIGITS && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Lines that end as they should.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A line without its end, from here to there.
enum Line {
    Whole(usize, usize),
    Part,
    /// It ends in another way.
    Odd,
}

impl Lines<'_> {
    fn next(&mut self) -> Line {
        let from = self.at;
        let Some(len) = find(&self.bytes[from..], b'\n') else { return Line::Part };
        self.at = from + len + 1;
        if len == 0 || self.bytes[from + len - 1] != b'\r' {
            return Line::Odd;
        }
        Line::Whole(from, from + len - 1)
    }
}

/// Where a byte is first, eight looked at at once: lines are too short for a search that begins with questions (Mycroft 1987; Warren, Hacker's Delight, 6-1).
#[inline]
fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let differs = u64::from_le_bytes(*word) ^ (LOW * u64::from(byte));
        // The lowest bit that is set is of the first byte that is the same; those above it may be of others.
        let same = differs.wrapping_sub(LOW) & !differs & (LOW << 7);
        if same != 0 {
            return Some(n * 8 + same.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|other| *other == byte).map(|at| words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Seen {
        read(text.as_bytes(), false, &mut HeaderMap::new())
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
    fn a_byte_is_found_where_it_is_first() {
        // Neighbours of what is looked for, by one bit and by carry.
        let others = [b'\n' - 1, b'\n' + 1, 0, 0x80 | b'\n', 0xff, b'\r', 0x0b];
        for len in 0..40 {
            for shift in 0..others.len() {
                let mut bytes: Vec<u8> = others.iter().cycle().skip(shift).take(len).copied().collect();
                assert_eq!(find(&bytes, b'\n'), None, "{bytes:?}");
                for at in (0..len).rev() {
                    bytes[at] = b'\n';
                    assert_eq!(find(&bytes, b'\n'), Some(at), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn how_long_a_body_is_is_as_the_standard_has_it() {
        let read = |head: &str, is_to_head: bool| match read(head.as_bytes(), is_to_head, &mut HeaderMap::new()) {
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
            "HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
        ];
        assert!(odd.iter().all(|text| matches!(seen(text), Seen::Other)));
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
            "content-length: 1\r\nx: a\n",
            "content-length: 1\n",
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
