//! Fields of heads, as they are read and written where hyper does neither.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Names that are found again by a look, and how long they may be.
const NAMES: usize = 128;
const LONGEST: usize = 64;

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
    let (first, last, middle) = (written.first()?, written.last()?, written[written.len() / 2]);
    let place = [*first, middle, *last].iter().fold(written.len(), |sum, letter| sum * 5 + usize::from(*letter)) % NAMES;
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

    #[test]
    fn long_names_are_not_kept() {
        let long = "x".repeat(LONGEST + 1);
        assert!(name(long.as_bytes()).is_some());
        KNOWN.with_borrow(|known| assert!(known.iter().flatten().all(|known| known.written.len() <= LONGEST)));
    }
}
