//! The host that a request is for, as one normal form or not at all.
//!
//! Always: two spellings of one name become one text, and a request that could be read as two hosts is refused, so that a
//! proxy in front and this process cannot disagree about the tenant.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};
use insula_catalog::host::{self, Fault, Host};

/// Why a request has no usable host. Each is a 400 (RFC 9112, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Neither a Host header nor an authority.
    #[error("the request names no host")]
    Missing,
    /// More than one Host header.
    #[error("the request has more than one Host header")]
    Duplicate,
    /// Host header and request target name different hosts.
    #[error("the Host header and the request target name different hosts")]
    Contradiction,
    /// Not a host.
    #[error("the host that the request names is none: {0}")]
    Malformed(#[from] Fault),
}

/// Reads the host: from the authority (HTTP/2, absolute form) or the Host header (RFC 9110, section 7.2); both must agree.
/// `X-Forwarded-Host` and `Forwarded` are never read: anybody can send them.
///
/// # Errors
/// [`HostError`]; never a guess.
#[inline]
pub fn of<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Result<Host<'a>, HostError> {
    let mut named = headers.get_all(HOST).iter();
    let header = match (named.next(), named.next()) {
        (None, _) => None,
        // As nearly all come: read once.
        (Some(one), None)
            if uri.authority().is_none()
                && let Some(host) = host::plain(one.as_bytes()) =>
        {
            return Ok(host);
        }
        (Some(one), None) => Some(text(one)?),
        (Some(_), Some(_)) => return Err(HostError::Duplicate),
    };
    match (header, uri.authority().map(http::uri::Authority::as_str)) {
        // HTTP/2 with a Host header beside its authority, mostly the very same.
        (Some(header), Some(target)) if header != target => {
            let (header, target) = (host::parse(header)?, host::parse(target)?);
            if header == target { Ok(header) } else { Err(HostError::Contradiction) }
        }
        (Some(host), _) | (None, Some(host)) => Ok(host::parse(host)?),
        (None, None) => Err(HostError::Missing),
    }
}

fn text(value: &HeaderValue) -> Result<&str, HostError> {
    // What no header text can be is told apart by the same words: beyond ASCII, or a control.
    let fault = || if value.as_bytes().is_ascii() { Fault::Character } else { Fault::International };
    value.to_str().map_err(|_| HostError::Malformed(fault()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(hosts: &[&str], target: &str) -> Result<String, HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).expect("a header value"));
        }
        of(&headers, &target.parse().expect("a target")).map(|host| host.as_str().to_owned())
    }

    #[test]
    fn the_authority_serves_http2_and_must_agree_with_host() {
        for header in ["acme.localhost", "ACME.localhost:9", "acme.localhost.", "acme.localhost:1"] {
            assert_eq!(host(&[header], "http://acme.localhost:1/x"), Ok("acme.localhost".to_owned()), "{header}");
        }
        assert_eq!(host(&[], "http://acme.localhost:1/x"), Ok("acme.localhost".to_owned()));
        assert_eq!(host(&["globex.localhost"], "http://acme.localhost/x"), Err(HostError::Contradiction));
        assert_eq!(host(&["[::1]:80"], "http://[0:0::1]/"), Ok("::1".to_owned()));
        assert_eq!(host(&[], "http://u:p@acme.localhost/"), Err(HostError::Malformed(Fault::Port)));
        assert_eq!(host(&[], "http://u@acme.localhost/"), Err(HostError::Malformed(Fault::Character)));
    }

    #[test]
    fn whatever_could_be_read_twice_is_refused() {
        assert_eq!(host(&[], "/"), Err(HostError::Missing));
        assert_eq!(host(&["a.localhost", "a.localhost"], "/"), Err(HostError::Duplicate));
        for (bad, fault) in [
            ("", Fault::Empty),
            ("a:80:80", Fault::Port),
            ("acme.localhost,globex.localhost", Fault::Character),
            ("acm\u{e9}.localhost", Fault::International),
            ("acme.localhost\t", Fault::Character),
        ] {
            assert_eq!(host(&[bad], "/"), Err(HostError::Malformed(fault)), "{bad:?}");
        }
    }
}
