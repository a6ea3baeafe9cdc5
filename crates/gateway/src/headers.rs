//! Header fields on their way through: what is meant for one hop ends here, what upstream trusts is written here.
//!
//! Always: no `Insula-*` field of a client passes, nor one that some application would take for such (CGI and WSGI read `_` as `-`); `Forwarded` and `X-Forwarded-*` are the client's word only when the client is a proxy
//! that the settings trust (RFC 7239, section 8.1); hop-by-hop fields and those that `Connection` names stop (RFC 9110, section 7.6.1).

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use insula_http::admit::OVERLOADED;

use crate::connection::Peer;

/// Follows a request through every log line and answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that are the gateway's own to write.
const OURS: &str = "insula-";
const FORWARDED_BY_US: &str = "x-forwarded-";
const REAL_IP: &str = "x-real-ip";

/// How long a head is as HTTP/1.1 writes it (RFC 9112, section 3): space around values, which nobody needs, aside.
pub(crate) fn bytes(head: &Parts) -> usize {
    let target = head.uri.authority().map_or(0, |authority| authority.as_str().len())
        + head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let line = head.method.as_str().len() + target + "  HTTP/1.1\r\n".len();
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + fields.sum::<usize>() + "\r\n".len()
}

/// Makes a client's request one of ours.
pub(crate) fn of_request(headers: &mut HeaderMap, peer: &Peer, host: HeaderValue) {
    let mut has_host = false;
    drop_fields(headers, |name| {
        has_host |= *name == HOST;
        is_foreign(name, peer.is_trusted)
    });
    if !has_host {
        headers.insert(HOST, host.clone());
    }
    if peer.is_trusted {
        append_forwarded_for(headers, peer);
        headers.entry(X_FORWARDED_PROTO).or_insert_with(|| peer.scheme.clone());
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    } else {
        headers.insert(X_FORWARDED_FOR, peer.address.clone());
        headers.insert(X_FORWARDED_PROTO, peer.scheme.clone());
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// What of a client's fields is not to reach upstream.
fn is_foreign(name: &HeaderName, trusted: bool) -> bool {
    // Few names begin so: the rest is decided by one letter.
    match name.as_str().as_bytes()[0] {
        b'e' => *name == EXPECT,
        b'f' => *name == FORWARDED && !trusted,
        b'i' => begins(name, OURS),
        b'k' => *name == KEEP_ALIVE,
        b'p' => *name == PROXY_CONNECTION || *name == PROXY_AUTHORIZATION,
        b't' => *name == TE || *name == TRAILER || *name == TRANSFER_ENCODING,
        b'u' => *name == UPGRADE,
        b'x' => {
            // A trusted proxy does not write them with anything else than hyphens.
            let believed = trusted && name.as_str().bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric());
            let id = name.as_str().len() == REQUEST_ID.as_str().len() && begins(name, REQUEST_ID.as_str());
            (!believed && (begins(name, FORWARDED_BY_US) || begins(name, REAL_IP))) || (id && *name != REQUEST_ID)
        }
        _ => false,
    }
}

/// Whether a field's name begins so, for a reader to whom whatever is neither letter nor digit is `-`: environments of CGI know `_` alone.
fn begins(name: &HeaderName, with: &str) -> bool {
    let name = name.as_str().as_bytes();
    let same = |a: &u8, b: &u8| a == b || (*b == b'-' && !a.is_ascii_alphanumeric());
    name.len() >= with.len() && name.iter().zip(with.as_bytes()).all(|(a, b)| same(a, b))
}

/// Brings what HTTP/2 may say in pieces to the one field that HTTP/1.1 has for it: a browser sends each cookie in a field of its own
/// (RFC 9113, section 8.2.3), and one length may come twice.
pub(crate) fn of_http2(headers: &mut HeaderMap) {
    join_cookies(headers);
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some()
        && let Some(length) = headers.remove(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length);
    }
}

fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(mut whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        whole.set_sensitive(true);
        headers.insert(COOKIE, whole);
    }
}

/// Makes upstream's answer one for the client. That of an upgrade keeps what it is about.
pub(crate) fn of_response<B>(response: &mut Response<B>) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    drop_fields(response.headers_mut(), is_for_one_hop);
}

/// What of upstream's fields is meant for us.
fn is_for_one_hop(name: &HeaderName) -> bool {
    match name.as_str().as_bytes()[0] {
        b'i' => *name == OVERLOADED,
        b'k' => *name == KEEP_ALIVE,
        b'p' => *name == PROXY_CONNECTION || *name == PROXY_AUTHENTICATE,
        b't' => *name == TRANSFER_ENCODING,
        b'u' => *name == UPGRADE,
        _ => false,
    }
}

/// Drops the fields that are chosen, `Connection`, and those that it names. One look at each name: to ask for one by one would hash each.
fn drop_fields(headers: &mut HeaderMap, mut is_chosen: impl FnMut(&HeaderName) -> bool) {
    // Hardly ever more than none.
    let (mut chosen, mut has_connection, mut names_others) = (Vec::new(), false, false);
    for (name, value) in headers.iter() {
        if *name == CONNECTION {
            has_connection = true;
            names_others |= !is_about_itself(value);
        } else if is_chosen(name) {
            chosen.push(name.clone());
        }
    }
    if names_others {
        drop_named_by_connection(headers);
    }
    if has_connection {
        headers.remove(CONNECTION);
    }
    for name in chosen {
        headers.remove(name);
    }
}

/// `Connection` with a word that names no field that is not dropped anyway.
fn is_about_itself(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"keep-alive") || value.as_bytes().eq_ignore_ascii_case(b"close")
}

fn drop_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Whom the request is for is not the client's to take away.
        .filter(|name| *name != HOST)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Every proxy adds whom it has the request from.
fn append_forwarded_for(headers: &mut HeaderMap, peer: &Peer) {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(peer.address.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(is_trusted: bool) -> Peer {
        Peer::new("192.0.2.7:4711".parse().unwrap(), is_trusted, crate::listener::Scheme::Http)
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn get<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect()
    }

    #[test]
    fn what_a_stranger_says_of_himself_is_dropped() {
        let mut headers = map(&[
            ("host", "acme.localhost"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-port", "1"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("insula-tenant-context", "forged"),
            ("insula-anything", "forged"),
            ("accept", "*/*"),
        ]);
        of_request(&mut headers, &peer(false), "acme.localhost".parse().unwrap());
        let mut left: Vec<String> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        left.sort();
        let wanted = [
            "accept: */*",
            "host: acme.localhost",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: acme.localhost",
            "x-forwarded-proto: http",
        ];
        assert_eq!(left, wanted);
    }

    #[test]
    fn what_an_application_would_take_for_ours_is_dropped_too() {
        for trusted in [false, true] {
            let mut headers = map(&[
                ("insula_tenant_context", "forged"),
                ("insula-tenant_context", "forged"),
                ("insula.tenant.context", "forged"),
                ("insula!tenant~context", "forged"),
                ("x.forwarded.for", "1.2.3.4"),
                ("x_forwarded_for", "1.2.3.4"),
                ("x-forwarded_for", "1.2.3.4"),
                ("x_real_ip", "1.2.3.4"),
                ("x_request_id", "forged"),
                ("x_own_header", "kept"),
                ("insulation", "kept"),
            ]);
            of_request(&mut headers, &peer(trusted), "acme.localhost".parse().unwrap());
            let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, ["host", "insulation", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x_own_header"]);
        }
    }

    #[test]
    fn what_http2_says_in_pieces_is_one_field() {
        let mut headers = map(&[
            ("cookie", "a=1"),
            ("cookie", "session=x"),
            ("cookie", "b=2; c=3"),
            ("content-length", "2"),
            ("content-length", "2"),
            ("accept", "a"),
            ("accept", "b"),
        ]);
        of_http2(&mut headers);
        assert_eq!(get(&headers, "cookie"), ["a=1; session=x; b=2; c=3"]);
        assert_eq!((get(&headers, "content-length"), get(&headers, "accept")), (vec!["2"], vec!["a", "b"]));
        let mut headers = map(&[("cookie", "one=1"), ("content-length", "3")]);
        of_http2(&mut headers);
        assert_eq!((get(&headers, "cookie"), get(&headers, "content-length")), (vec!["one=1"], vec!["3"]));
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("insula-x", "no"),
        ]);
        of_request(&mut headers, &peer(true), "acme.localhost".parse().unwrap());
        assert_eq!(get(&headers, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2, 192.0.2.7"]);
        assert_eq!(get(&headers, "x-forwarded-proto"), ["https"]);
        assert!(!headers.contains_key("insula-x"));
    }

    #[test]
    fn hop_by_hop_fields_stop_here() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-secret-hop"),
            ("connection", "host"),
            ("x-secret-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("proxy-authorization", "x"),
            ("host", "acme.localhost"),
        ]);
        of_request(&mut headers, &peer(false), "acme.localhost".parse().unwrap());
        assert!(
            ["connection", "x-secret-hop", "keep-alive", "te", "proxy-authorization"].iter().all(|n| !headers.contains_key(*n))
        );
        assert!(headers.contains_key("host"));
        let mut answer = Response::new(());
        *answer.headers_mut() = map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("insula-overloaded", "1"),
            ("etag", "1"),
        ]);
        of_response(&mut answer);
        assert_eq!(answer.headers().len(), 1);
    }
}
