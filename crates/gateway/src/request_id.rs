//! A name for each request: unique, sorted by time, cheap. Not a secret.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;

/// Makes them; one a worker.
pub(crate) struct RequestIds {
    state: Cell<u64>,
}

impl RequestIds {
    /// Seeded by the system.
    pub(crate) fn new(worker: usize) -> Self {
        Self { state: Cell::new(RandomState::new().hash_one(worker)) }
    }

    /// The next: twelve hexadecimal digits of milliseconds, sixteen that differ.
    pub(crate) fn next(&self, seed: u64) -> HeaderValue {
        // SplitMix64 (Steele, Lea, Flood 2014): every state gives another value.
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let mut text = [0; 28];
        hex(seed, &mut text[..12]);
        hex(mixed, &mut text[12..]);
        // Hexadecimal digits always are a value. It is cloned for three: an owner of its own makes that a count, and one allocation in all.
        HeaderValue::from_maybe_shared(Bytes::from_owner(text)).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }
}

/// Milliseconds since 1970, for the first part of an id.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

fn hex(mut n: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_sort_by_time() {
        let (one, two) = (RequestIds::new(0), RequestIds::new(1));
        let ids: HashSet<_> = (0..1000).flat_map(|_| [one.next(5), two.next(5)]).collect();
        assert_eq!(ids.len(), 2000);
        assert!(one.next(5).to_str().unwrap() < one.next(6).to_str().unwrap());
        assert!(one.next(0xabc).to_str().unwrap().starts_with("000000000abc"));
    }
}
