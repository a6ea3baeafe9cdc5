//! Any bytes as a host: one form or a refusal, the same for everybody who reads it.

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};
use insula_catalog::host::parse;

/// # Panics
/// When the parser breaks a promise.
pub(crate) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(host) = parse(text)
    {
        let form = host.as_str();
        assert!(!form.is_empty() && form.len() <= 253 && form.is_ascii(), "{text:?} became {form:?}");
        assert!(
            form.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.:".contains(&b)),
            "{text:?} became {form:?}"
        );
        assert!(form.contains(':') <= host.is_address(), "{text:?} became {form:?}");
        let again = if form.contains(':') { format!("[{form}]") } else { form.to_owned() };
        assert_eq!(parse(&again).ok().as_ref().map(insula_catalog::host::Host::as_str), Some(form), "{text:?}");
        assert_eq!(
            parse(&text.to_ascii_uppercase()).ok().as_ref().map(insula_catalog::host::Host::as_str),
            Some(form),
            "{text:?}"
        );
    }
    // As requests carry it: in a header, in a target, or in both.
    let (first, second) = data.split_at(data.len() / 2);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(first) {
        headers.append(HOST, value);
    }
    if let Ok(uri) = Uri::try_from(second) {
        let read = insula_http::host::of(&headers, &uri).map(|host| host.as_str().to_owned());
        if let (Ok(host), Some(authority)) = (read, uri.authority()) {
            assert_eq!(parse(authority.as_str()).map(|host| host.as_str().to_owned()), Ok(host), "target and answer differ");
        }
        headers.append(HOST, HeaderValue::from_static("acme.localhost"));
        if headers.get_all(HOST).iter().count() > 1 {
            assert!(insula_http::host::of(&headers, &uri).is_err(), "two Host headers are one too many");
        }
    }
}
