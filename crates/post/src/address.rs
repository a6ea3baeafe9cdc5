//! Addresses as text.

use url::{Host, Url};

use crate::reach::Reach;

/// Refuses what can be seen to lead nowhere. What a name leads to is judged when it is connected to.
///
/// # Errors
/// What would be accepted, in words for whoever named the address.
pub fn check_url(reach: Reach, text: &str) -> Result<(), &'static str> {
    let Ok(url) = Url::parse(text) else { return Err("a URL that begins with https:// or http://") };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || text.len() > 2000 {
        return Err("a URL that begins with https:// or http://, of at most 2,000 characters");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("without a user or password: a receiver knows us by the signature");
    }
    let address = match url.host() {
        Some(Host::Ipv4(v4)) => Some(v4.into()),
        Some(Host::Ipv6(v6)) => Some(v6.into()),
        _ => None,
    };
    match address {
        Some(address) if !reach.allows(address) => Err("an address that webhooks may reach (see the operator's guide)"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_lead_nowhere_are_refused_at_once() {
        let refused = |reach, url: &str| check_url(reach, url).is_err();
        for url in
            ["ftp://x.example/", "https://", "nonsense", "https://user@x.example/", "https://u:p@x.example/", "http://[::1]/"]
        {
            assert!(refused(Reach::Public, url), "{url}");
        }
        // However the address is written.
        for url in
            ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::ffff:127.0.0.1]/", "https://10.0.0.1/"]
        {
            assert!(refused(Reach::Public, url), "{url}");
        }
        assert!(!refused(Reach::Public, "https://hooks.example/in?token=x"));
        assert!(!refused(Reach::Private, "http://127.0.0.1:8080/in"));
        assert!(refused(Reach::Private, "http://169.254.169.254/latest/meta-data"));
    }
}
