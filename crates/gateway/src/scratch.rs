//! Room that a worker's connections use by turns.
//!
//! For: what a request needs while it is under way. Had each connection its own, it would have to be fetched from memory each time: with what is given
//! back last and taken first, it is at hand, and a connection that waits for its client has nothing. Always: what was not given back is missed by
//! nobody; what is kept here is bounded.

use std::cell::RefCell;

use http::HeaderMap;

/// As many requests may be under way on a worker without new room for each.
const KEPT: usize = 64;
/// What has become larger than this is not kept.
const MOST_BYTES: usize = 16 << 10;
const MOST_ROOM: usize = 96;

/// Of a head that has more fields, the room is not kept: a map does not say how much it keeps for names that come more than once.
pub(crate) const FIELDS: usize = 64;

#[derive(Default)]
struct Scratch {
    bytes: Vec<Vec<u8>>,
    fields: Vec<HeaderMap>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { bytes: Vec::new(), fields: Vec::new() }) };
}

/// Room for bytes, empty.
pub(crate) fn bytes() -> Vec<u8> {
    SCRATCH.with_borrow_mut(|scratch| scratch.bytes.pop()).unwrap_or_default()
}

/// Takes it back, with whatever is in it.
pub(crate) fn give_back_bytes(mut bytes: Vec<u8>) {
    bytes.clear();
    SCRATCH.with_borrow_mut(|scratch| {
        if bytes.capacity() <= MOST_BYTES && scratch.bytes.len() < KEPT {
            scratch.bytes.push(bytes);
        }
    });
}

/// Room for a head's fields, empty.
pub(crate) fn fields() -> HeaderMap {
    SCRATCH.with_borrow_mut(|scratch| scratch.fields.pop()).unwrap_or_default()
}

/// Takes it back, with whatever is in it; never more than [`FIELDS`], and some of ours, were in it.
pub(crate) fn give_back_fields(mut fields: HeaderMap) {
    fields.clear();
    SCRATCH.with_borrow_mut(|scratch| {
        if (1..=MOST_ROOM).contains(&fields.capacity()) && scratch.fields.len() < KEPT {
            scratch.fields.push(fields);
        }
    });
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HOST;

    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again_and_empty() {
        let mut room = bytes();
        room.extend_from_slice(&[1; 100]);
        let place = room.as_ptr();
        give_back_bytes(room);
        let room = bytes();
        assert_eq!((room.as_ptr(), room.len()), (place, 0));
        let mut map = fields();
        map.insert(HOST, HeaderValue::from_static("a"));
        let capacity = map.capacity();
        give_back_fields(map);
        let map = fields();
        assert_eq!((map.len(), map.capacity()), (0, capacity));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        give_back_bytes(Vec::with_capacity(MOST_BYTES + 1));
        give_back_fields(HeaderMap::with_capacity(2 * MOST_ROOM));
        give_back_fields(HeaderMap::new());
        assert_eq!((bytes().capacity(), fields().capacity()), (0, 0));
        for _ in 0..2 * KEPT {
            give_back_bytes(Vec::with_capacity(1));
            give_back_fields(HeaderMap::with_capacity(1));
        }
        SCRATCH.with_borrow(|scratch| assert_eq!((scratch.bytes.len(), scratch.fields.len()), (KEPT, KEPT)));
    }
}
