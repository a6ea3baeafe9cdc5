//! Host names as requests carry them, brought to the one form that tables hold. No allocation.

/// The longest host name (RFC 1035, as text without the root's dot).
const MAX: usize = 253;

/// A host name in lower case, without port and trailing dot: borrowed when it came so, on the stack otherwise.
#[derive(Clone, Copy)]
pub struct Host<'a>(Text<'a>);

#[derive(Clone, Copy)]
#[expect(clippy::large_enum_variant, reason = "on the stack: nothing is allocated")]
enum Text<'a> {
    Borrowed(&'a str),
    Lowered([u8; MAX], usize),
}

impl Host<'_> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Borrowed(text) => text,
            // Only ASCII is ever put there.
            Text::Lowered(buffer, len) => buffer.get(..*len).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default(),
        }
    }

    /// The label before `base` (`acme` of `acme.example.com` under `example.com`), when there is exactly one.
    #[must_use]
    pub fn label_under(&self, base: &str) -> Option<&str> {
        let label = self.as_str().strip_suffix(base)?.strip_suffix('.')?;
        (!label.is_empty() && !label.contains('.')).then_some(label)
    }
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Reads the value of a `Host` header or an authority (RFC 9110 7.2). `None` for what cannot name a tenant: an empty or
/// overlong name, IPv6 literals, user information, a port that is none, characters that no host name has (names beyond ASCII
/// come as punycode on the wire).
#[must_use]
pub fn normalise(text: &str) -> Option<Host<'_>> {
    let name = match text.split_once(':') {
        None => text,
        Some((name, port)) if port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) => return None,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > MAX {
        return None;
    }
    let mut upper = false;
    for b in name.bytes() {
        match b {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {}
            b'A'..=b'Z' => upper = true,
            _ => return None,
        }
    }
    if !upper {
        return Some(Host(Text::Borrowed(name)));
    }
    let mut buffer = [0; MAX];
    for (to, from) in buffer.iter_mut().zip(name.bytes()) {
        *to = from.to_ascii_lowercase();
    }
    Some(Host(Text::Lowered(buffer, name.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_to_one_form() {
        let long = format!("{}.example", "a".repeat(250));
        for (given, wanted) in [
            ("acme.localhost", Some("acme.localhost")),
            ("ACME.LocalHost:8080", Some("acme.localhost")),
            ("acme.localhost.", Some("acme.localhost")),
            ("acme.localhost.:80", Some("acme.localhost")),
            ("acme.localhost:", Some("acme.localhost")),
            ("", None),
            (".", None),
            (":80", None),
            ("[::1]:80", None),
            ("a@b", None),
            ("acme.localhost:http", None),
            ("acme.localhost:80:80", None),
            ("a b", None),
            ("é.localhost", None),
            ("acme\0.localhost", None),
            (long.as_str(), None),
        ] {
            assert_eq!(normalise(given).as_ref().map(Host::as_str), wanted, "{given:?}");
        }
    }

    #[test]
    fn one_label_stands_before_the_base() {
        let under = |host: &'static str| normalise(host).unwrap().label_under("example.com").map(str::to_owned);
        assert_eq!(under("acme.example.com"), Some("acme".into()));
        assert_eq!(under("AcMe.example.COM:1"), Some("acme".into()));
        for none in ["example.com", ".example.com", "a.b.example.com", "acmeexample.com", "acme.example.org", "com"] {
            assert_eq!(under(none), None, "{none}");
        }
    }
}
