//! Fields of heads, as they are read and written where hyper does neither.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Names that are found again by a look, and how long they may be.
const NAMES: usize = 1 << NAMES_BITS;
const NAMES_BITS: u32 = 10;
const LONGEST: usize = 64;

/// Found by trial: with this one, the usual names are each at a place of its own, in small letters and with capitals (a test has them).
const SPREAD: u64 = 0x40ef_149f_b0b1_b261;

struct Known {
    /// As it was written.
    written: Box<[u8]>,
    name: HeaderName,
}

thread_local! {
    /// A worker's connections say mostly the same names: which one it is takes a comparison here, where http goes through all that have its length.
    static KNOWN: RefCell<[Option<Known>; NAMES]> = const { RefCell::new([const { None }; NAMES]) };
}

/// A field's name as it was written; nothing when it is none.
pub(crate) fn name(written: &[u8]) -> Option<HeaderName> {
    let place = place(written);
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = &known[place]
            && *known.written == *written
        {
            return Some(known.name.clone());
        }
        let name = HeaderName::from_bytes(written).ok()?;
        if written.len() <= LONGEST {
            known[place] = Some(Known { written: written.into(), name: name.clone() });
        }
        Some(name)
    })
}

/// Where a name is looked for: by its length, its first eight letters and its last.
fn place(written: &[u8]) -> usize {
    let letters = |eight: Option<&[u8; 8]>| eight.map(|eight| u64::from_le_bytes(*eight));
    let few = || written.iter().take(8).fold(0, |sum, letter| sum << 8 | u64::from(*letter));
    let (first, last) = (letters(written.first_chunk()).unwrap_or_else(few), letters(written.last_chunk()).unwrap_or(0));
    // A product's upper bits hang on all of it (Knuth, volume 3, section 6.4).
    let mixed = (first ^ last.rotate_left(29) ^ written.len() as u64).wrapping_mul(SPREAD);
    (mixed >> (u64::BITS - NAMES_BITS)) as usize
}

/// A field; nothing when it is none.
pub(crate) fn read(field: &httparse::Header<'_>) -> Option<(HeaderName, HeaderValue)> {
    Some((name(field.name.as_bytes())?, HeaderValue::from_bytes(field.value).ok()?))
}

/// Lays them into `out`, as they stand in a head.
pub(crate) fn write(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.reserve(name.len() + value.len() + 4);
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_whatever_came_before() {
        let long = "x".repeat(LONGEST + 1);
        let written = ["host", "Host", "hOst", "x-a", "X-A", "x_a", "x-\u{1}", "a b", "", "x-1", "xQ1", "x\r1", "\u{e9}", &long];
        for (before, after) in written.iter().flat_map(|one| written.iter().map(move |other| (one, other))) {
            for written in [before, after] {
                assert_eq!(
                    name(written.as_bytes()),
                    HeaderName::from_bytes(written.as_bytes()).ok(),
                    "{after:?} behind {before:?}"
                );
            }
        }
        for n in 0..10 * NAMES {
            let written = format!("x-{n}");
            assert_eq!(name(written.as_bytes()).unwrap().as_str(), written);
        }
    }

    /// What browsers and other clients send, and what applications answer with.
    const USUAL: &str = "accept accept-charset accept-encoding accept-language authorization cache-control connection cookie content-length \
        content-type date dnt expect forwarded host if-match if-modified-since if-none-match if-range keep-alive origin pragma priority range referer \
        save-data sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user te traceparent tracestate \
        transfer-encoding upgrade upgrade-insecure-requests user-agent via x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip x-request-id \
        x-requested-with x-tenant accept-ranges access-control-allow-origin age allow alt-svc content-disposition content-encoding content-language \
        content-location content-range content-security-policy etag expires last-modified link location referrer-policy retry-after server set-cookie \
        strict-transport-security vary www-authenticate x-content-type-options x-frame-options ratelimit ratelimit-policy insula-overloaded";

    #[test]
    fn usual_names_are_at_places_of_their_own() {
        let capital = |name: &str| -> String {
            let mut is_first = true;
            let letter = |c: char| {
                let c = if is_first { c.to_ascii_uppercase() } else { c };
                is_first = c == '-';
                c
            };
            name.chars().map(letter).collect()
        };
        let written: std::collections::BTreeSet<_> =
            USUAL.split_whitespace().flat_map(|name| [name.to_owned(), capital(name)]).collect();
        let mut places = std::collections::HashMap::new();
        for name in written {
            assert_eq!(places.insert(place(name.as_bytes()), name.clone()), None, "{name}");
        }
    }

    #[test]
    fn long_names_are_not_kept() {
        let long = "x".repeat(LONGEST + 1);
        assert!(name(long.as_bytes()).is_some());
        KNOWN.with_borrow(|known| assert!(known.iter().flatten().all(|known| known.written.len() <= LONGEST)));
    }
}
