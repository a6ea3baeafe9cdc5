//! Host names as requests carry them, brought to the one form that tables hold. No allocation, but for
//! a long name that did not come in it.
//!
//! Always: two spellings of one host become one text, or the text is refused; nobody downstream sees the spelling. Names beyond
//! ASCII come as punycode on the wire (RFC 5890), and what does not is refused: two programs that map such a name to ASCII by
//! different tables would see two tenants (`docs/decisions/0026`).

use std::net::{Ipv4Addr, Ipv6Addr};

use smol_str::SmolStr;

/// The longest host name (RFC 1035, as text without the root's dot).
const MAX: usize = 253;
/// The longest label of one.
const LABEL: usize = 63;

/// Why a text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// Nothing, or a dot with nothing beside it.
    #[error("it has an empty part")]
    Empty,
    /// A name above 253 characters, or a label above 63.
    #[error("it, or a part of it, is too long")]
    Long,
    /// A character beyond ASCII.
    #[error("it has a character beyond ASCII: international names come as punycode (xn--…)")]
    International,
    /// Another character that no host has: a control, a space, `@`, `%`, `/`, a comma.
    #[error("it has a character that no host name has")]
    Character,
    /// What stands behind the colon is no port.
    #[error("its port is no port")]
    Port,
    /// Brackets without an IPv6 address in them.
    #[error("there is no IPv6 address between its brackets")]
    Address,
}

/// A host in lower case, without port, brackets and trailing dot: borrowed when it came so. Small, as each source of hints hands it on.
#[derive(Clone)]
pub struct Host<'a> {
    text: Text<'a>,
    address: bool,
}

#[derive(Clone)]
enum Text<'a> {
    Borrowed(&'a str),
    Written(SmolStr),
}

impl Host<'_> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.text {
            Text::Borrowed(text) => text,
            Text::Written(text) => text,
        }
    }

    /// Whether it is an IP address, which names nobody.
    #[must_use]
    pub const fn is_address(&self) -> bool {
        self.address
    }

    /// The label before `base` (`acme` of `acme.example.com` under `example.com`), when there is exactly one.
    #[must_use]
    pub fn label_under(&self, base: &str) -> Option<&str> {
        let label = self.as_str().strip_suffix(base)?.strip_suffix('.')?;
        (!label.is_empty() && !label.contains('.')).then_some(label)
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Host<'_> {}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Reads the value of a `Host` header or an authority (RFC 9110 7.2, RFC 3986 3.2.2): a name or an IP address, and perhaps a port.
///
/// # Errors
/// [`Fault`] for everything else, user information included.
#[inline]
pub fn parse(text: &str) -> Result<Host<'_>, Fault> {
    if is_plain(text.as_bytes()) {
        return Ok(Host { text: Text::Borrowed(text), address: false });
    }
    parse_odd(text)
}

/// [`parse`] of what may be no text, when it is a name as nearly all come; `None` says nothing.
#[must_use]
#[inline]
pub fn plain(text: &[u8]) -> Option<Host<'_>> {
    let text = is_plain(text).then_some(text)?;
    Some(Host { text: Text::Borrowed(std::str::from_utf8(text).ok()?), address: false })
}

/// Whether it is a name as nearly all come: in the one form already, without a port, ending in a letter.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let mut label = 0usize;
    for b in text {
        label = match CLASSES[usize::from(*b)] {
            Class::Plain => label + 1,
            Class::Dot if label.wrapping_sub(1) < LABEL => 0,
            _ => return false,
        };
    }
    label.wrapping_sub(1) < LABEL && text.len() <= MAX && text.last().is_some_and(u8::is_ascii_lowercase)
}

fn parse_odd(text: &str) -> Result<Host<'_>, Fault> {
    if let Some(literal) = text.strip_prefix('[') {
        return address(literal);
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    if let Some(port) = port {
        // First, so that `a@b:80:80` and `::1` are refused whatever stands before.
        is_port(port)?;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let upper = check(name)?;
    let text = if upper { Text::Written(name.chars().map(|c| c.to_ascii_lowercase()).collect()) } else { Text::Borrowed(name) };
    // A name cannot end in a digit-only label unless it is an address (RFC 1123 2.1).
    let address = name.as_bytes().last().is_some_and(u8::is_ascii_digit) && name.parse::<Ipv4Addr>().is_ok();
    Ok(Host { text, address })
}

/// [`parse`], for those who do not ask why.
#[must_use]
pub fn normalise(text: &str) -> Option<Host<'_>> {
    parse(text).ok()
}

/// Whether it has upper case.
fn check(name: &str) -> Result<bool, Fault> {
    if name.len() > MAX {
        return Err(Fault::Long);
    }
    let (mut upper, mut label) = (false, 0usize);
    for b in name.bytes() {
        match CLASSES[usize::from(b)] {
            Class::Plain => label += 1,
            Class::Upper => {
                upper = true;
                label += 1;
            }
            Class::Dot if label == 0 => return Err(Fault::Empty),
            Class::Dot if label > LABEL => return Err(Fault::Long),
            Class::Dot => label = 0,
            Class::Other if b.is_ascii() => return Err(Fault::Character),
            Class::Other => return Err(Fault::International),
        }
    }
    match label {
        0 => Err(Fault::Empty),
        1..=LABEL => Ok(upper),
        _ => Err(Fault::Long),
    }
}

/// What a byte is in a name.
#[derive(Clone, Copy)]
enum Class {
    Plain,
    Upper,
    Dot,
    Other,
}

/// Of each byte: one look instead of a handful of comparisons, as every request's host is read.
const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut b = 0;
    while b < 256 {
        classes[b] = match b as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => Class::Plain,
            b'A'..=b'Z' => Class::Upper,
            b'.' => Class::Dot,
            _ => Class::Other,
        };
        b += 1;
    }
    classes
};

/// `::1]:80`, the first bracket gone: the address in its one canonical form (RFC 5952).
fn address(literal: &str) -> Result<Host<'static>, Fault> {
    let (address, rest) = literal.split_once(']').ok_or(Fault::Address)?;
    let address: Ipv6Addr = address.parse().map_err(|_| Fault::Address)?;
    match rest.strip_prefix(':') {
        Some(port) => is_port(port)?,
        None if rest.is_empty() => {}
        None => return Err(Fault::Port),
    }
    Ok(Host { text: Text::Written(smol_str::format_smolstr!("{address}")), address: true })
}

/// Empty, or a number that fits (RFC 3986 3.2.3).
fn is_port(text: &str) -> Result<(), Fault> {
    let digits = text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    if digits && (text.is_empty() || text.parse::<u16>().is_ok()) { Ok(()) } else { Err(Fault::Port) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_plain_is_read_as_it_is() {
        assert_eq!(plain(b"acme.localhost").map(|host| host.as_str().to_owned()).as_deref(), Some("acme.localhost"));
        for odd in
            [&b"ACME.localhost"[..], b"acme.localhost:80", b"acme.localhost.", b"127.0.0.1", b"acm\xe9.localhost", b"a..b", b""]
        {
            assert_eq!(plain(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn hosts_come_to_one_form() {
        let (label, name) = ("a".repeat(63), format!("{}.example", "a.".repeat(123)));
        for (given, wanted) in [
            ("acme.localhost", "acme.localhost"),
            ("ACME.LocalHost:8080", "acme.localhost"),
            ("acme.localhost.", "acme.localhost"),
            ("acme.localhost.:80", "acme.localhost"),
            ("acme.localhost:", "acme.localhost"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:80", "::1"),
            ("[0:0:0:0:0:0:0:1]", "::1"),
            ("[2001:DB8::A]:", "2001:db8::a"),
            (&label, &label),
        ] {
            assert_eq!(parse(given).as_ref().map(Host::as_str), Ok(wanted), "{given:?}");
        }
        for (given, fault) in [
            ("", Fault::Empty),
            (".", Fault::Empty),
            (":80", Fault::Empty),
            ("a..b", Fault::Empty),
            (".a", Fault::Empty),
            ("acme.localhost..", Fault::Empty),
            (&format!("{label}a"), Fault::Long),
            (&format!("{label}a.example"), Fault::Long),
            (&name, Fault::Long),
            ("é.localhost", Fault::International),
            ("acme\u{3002}localhost", Fault::International),
            ("acme\u{ff0e}localhost", Fault::International),
            ("a@b", Fault::Character),
            ("a b", Fault::Character),
            (" a", Fault::Character),
            ("a/b", Fault::Character),
            ("a\\b", Fault::Character),
            ("%61cme.localhost", Fault::Character),
            ("acme\0.localhost", Fault::Character),
            ("acme\r\n.localhost", Fault::Character),
            ("acme.localhost,globex.localhost", Fault::Character),
            ("u:p@acme.localhost", Fault::Port),
            ("acme.localhost:http", Fault::Port),
            ("acme.localhost:80:80", Fault::Port),
            ("acme.localhost:+8", Fault::Port),
            ("acme.localhost:99999", Fault::Port),
            ("acme.localhost:000080", Fault::Port),
            ("::1", Fault::Port),
            ("[::1]80", Fault::Port),
            ("[::1]:x", Fault::Port),
            ("[::1", Fault::Address),
            ("[]", Fault::Address),
            ("[fe80::1%25eth0]", Fault::Address),
            ("[v1.x]", Fault::Address),
            ("[127.0.0.1]", Fault::Address),
        ] {
            assert_eq!(parse(given), Err(fault), "{given:?}");
        }
    }

    #[test]
    fn addresses_are_known_as_such() {
        for (host, address) in
            [("[::1]", true), ("10.0.0.1:80", true), ("10.0.0.1.", true), ("10.0.1", false), ("a1", false), ("1.2.3.4.a", false)]
        {
            assert_eq!(parse(host).map(|host| host.is_address()), Ok(address), "{host}");
        }
    }

    #[test]
    fn one_label_stands_before_the_base() {
        let under = |host: &'static str| normalise(host).and_then(|host| host.label_under("example.com").map(str::to_owned));
        assert_eq!(under("acme.example.com"), Some("acme".into()));
        assert_eq!(under("AcMe.example.COM:1"), Some("acme".into()));
        for none in ["example.com", "a.b.example.com", "acmeexample.com", "acme.example.org", "com"] {
            assert_eq!(under(none), None, "{none}");
        }
    }

    proptest! {
        /// Whatever is read is in the one form: reading it again changes nothing.
        #[test]
        fn the_form_is_one(text in "[a-zA-Z0-9._:\\-\\[\\]%@ é]{0,40}") {
            if let Some(host) = plain(text.as_bytes()) {
                prop_assert_eq!(parse(&text), Ok(host));
            }
            if let Ok(host) = parse(&text) {
                let form = host.as_str();
                prop_assert!(!form.is_empty() && form.len() <= MAX);
                prop_assert!(!form.bytes().any(|b| b.is_ascii_uppercase()) && form.is_ascii());
                prop_assert!(!form.ends_with('.') || host.is_address());
                let again = if form.contains(':') { format!("[{form}]") } else { form.to_owned() };
                let again = parse(&again);
                prop_assert_eq!(again.as_ref().map(Host::as_str), Ok(form));
            }
        }

        /// All spellings of a name are one host.
        #[test]
        fn spellings_are_one(
            name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z0-9]{1,10}){0,4}", flips in any::<u64>(), dot: bool,
            port in proptest::option::of(any::<u16>()),
        ) {
            let mut spelling: String = name
                .chars()
                .enumerate()
                .map(|(i, c)| if flips >> (i % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c })
                .collect();
            if dot {
                spelling.push('.');
            }
            if let Some(port) = port {
                spelling.push_str(&format!(":{port}"));
            }
            let host = parse(&spelling);
            prop_assert_eq!(host.as_ref().map(Host::as_str), Ok(name.as_str()));
        }
    }
}
