//! The host that a request is for, as one normal form or not at all.
//!
//! Always: two spellings of one name become one text, and a request that could be read as two hosts is refused, so that a
//! proxy in front and this process cannot disagree about the tenant.

use std::net::{IpAddr, Ipv6Addr};

use http::header::HOST;
use http::{HeaderMap, Uri};

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
    /// Not a host name.
    #[error("the Host header is not a host name")]
    Malformed,
}

/// Reads the host: from the authority (HTTP/2, absolute form) or the Host header (RFC 9110, section 7.2); both must agree.
///
/// # Errors
/// [`HostError`]; never a guess.
pub fn of(headers: &HeaderMap, uri: &Uri) -> Result<String, HostError> {
    let mut named = headers.get_all(HOST).iter();
    let header = match (named.next(), named.next()) {
        (None, _) => None,
        (Some(one), None) => Some(normal(one.to_str().map_err(|_| HostError::Malformed)?)?),
        (Some(_), Some(_)) => return Err(HostError::Duplicate),
    };
    let target = uri.authority().map(|authority| normal(authority.as_str())).transpose()?;
    match (header, target) {
        (Some(header), Some(target)) if header != target => Err(HostError::Contradiction),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(HostError::Missing),
    }
}

/// `Acme.Example.COM.:8080` -> `acme.example.com`; an IPv6 address keeps no brackets.
fn normal(authority: &str) -> Result<String, HostError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(HostError::Malformed)?;
            let address: Ipv6Addr = address.parse().map_err(|_| HostError::Malformed)?;
            (IpAddr::V6(address).to_string(), port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(authority)?, Some("")),
        },
    };
    match port {
        Some("") => Ok(host),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok() => Ok(host),
        _ => Err(HostError::Malformed),
    }
}

fn name(text: &str) -> Result<String, HostError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let labels_fit = text.split('.').all(|label| (1..=63).contains(&label.len()));
    if text.len() > 253 || !labels_fit || !text.bytes().all(legal) {
        return Err(HostError::Malformed);
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(hosts: &[&str], target: &str) -> Result<String, HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, http::HeaderValue::from_bytes(host.as_bytes()).expect("a header value"));
        }
        of(&headers, &target.parse().expect("a target"))
    }

    #[test]
    fn spellings_of_one_name_are_one_name() {
        for spelling in ["acme.localhost", "ACME.localhost", "acme.localhost.", "acme.localhost:8080", "Acme.Localhost.:80"] {
            assert_eq!(host(&[spelling], "/"), Ok("acme.localhost".to_owned()), "{spelling}");
        }
        assert_eq!(host(&["[::1]:8080"], "/"), Ok("::1".to_owned()));
        assert_eq!(host(&["[0:0:0:0:0:0:0:1]"], "/"), Ok("::1".to_owned()));
        assert_eq!(host(&["127.0.0.1:1"], "/"), Ok("127.0.0.1".to_owned()));
    }

    #[test]
    fn the_authority_serves_http2_and_must_agree_with_host() {
        assert_eq!(host(&[], "http://acme.localhost:1/x"), Ok("acme.localhost".to_owned()));
        assert_eq!(host(&["ACME.localhost:9"], "http://acme.localhost/x"), Ok("acme.localhost".to_owned()));
        assert_eq!(host(&["globex.localhost"], "http://acme.localhost/x"), Err(HostError::Contradiction));
    }

    #[test]
    fn whatever_could_be_read_twice_is_refused() {
        assert_eq!(host(&[], "/"), Err(HostError::Missing));
        assert_eq!(host(&["a.localhost", "a.localhost"], "/"), Err(HostError::Duplicate));
        let long = "x".repeat(64);
        for bad in [
            "",
            ".",
            "a..b",
            "a b",
            "a/b",
            "a@b",
            "u:p@acme.localhost",
            "a:80:80",
            "a:x",
            "a:99999",
            "a:+8",
            "[::1",
            "[::1]x",
            "::1",
            "acme.localhost,globex.localhost",
            "acmé.localhost",
            "acme.localhost..",
            &long,
        ] {
            assert_eq!(host(&[bad], "/"), Err(HostError::Malformed), "{bad:?}");
        }
    }
}
