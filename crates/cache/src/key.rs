//! What a cached thing is called within its resource, as bytes.
//!
//! Always: keys of one type have the same bytes only when they are equal, also inside of tuples (texts carry their length, numbers have one
//! width). A key of up to [`INLINE`] bytes is built and kept without an allocation.

use std::fmt;

use uuid::Uuid;

/// Bytes that a key may have without an allocation.
pub const INLINE: usize = 22;

/// A name within a resource. Implement it for a type of your own by writing its parts one after the other.
pub trait Key {
    /// Writes the bytes.
    fn write(&self, to: &mut KeyBytes);
}

/// A key in the making, and made.
#[derive(Clone)]
pub struct KeyBytes(Repr);

#[derive(Clone)]
enum Repr {
    Here(u8, [u8; INLINE]),
    There(Vec<u8>),
}

impl KeyBytes {
    pub(crate) fn of<K: Key + ?Sized>(key: &K) -> Self {
        let mut bytes = Self(Repr::Here(0, [0; INLINE]));
        key.write(&mut bytes);
        bytes
    }

    pub(crate) fn from_slice(slice: &[u8]) -> Self {
        let mut bytes = Self(Repr::Here(0, [0; INLINE]));
        bytes.push(slice);
        bytes
    }

    /// Writes bytes of a fixed number.
    #[inline]
    pub fn push(&mut self, more: &[u8]) {
        match &mut self.0 {
            Repr::Here(len, bytes) => {
                let at = usize::from(*len);
                if let Some(free) = bytes.get_mut(at..at + more.len()) {
                    free.copy_from_slice(more);
                    // At most `INLINE`.
                    *len = (at + more.len()) as u8;
                } else {
                    self.0 = Repr::There([&bytes[..at], more].concat());
                }
            }
            Repr::There(bytes) => bytes.extend_from_slice(more),
        }
    }

    /// Writes bytes of any number: their length goes before them.
    #[inline]
    pub fn push_text(&mut self, text: &[u8]) {
        match u8::try_from(text.len()) {
            Ok(len) if len < u8::MAX => self.push(&[len]),
            _ => {
                self.push(&[u8::MAX]);
                self.push(&(text.len() as u64).to_be_bytes());
            }
        }
        self.push(text);
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Here(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Repr::There(bytes) => bytes,
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap(&self) -> usize {
        match &self.0 {
            Repr::Here(..) => 0,
            Repr::There(bytes) => bytes.capacity(),
        }
    }
}

impl PartialEq for KeyBytes {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for KeyBytes {}

impl std::hash::Hash for KeyBytes {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

/// A key may name a person: it is not for logs.
impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBytes({} bytes)", self.as_slice().len())
    }
}

impl Key for str {
    fn write(&self, to: &mut KeyBytes) {
        to.push_text(self.as_bytes());
    }
}

impl Key for String {
    fn write(&self, to: &mut KeyBytes) {
        self.as_str().write(to);
    }
}

impl Key for Uuid {
    fn write(&self, to: &mut KeyBytes) {
        to.push(self.as_bytes());
    }
}

impl Key for bool {
    fn write(&self, to: &mut KeyBytes) {
        to.push(&[u8::from(*self)]);
    }
}

impl<K: Key + ?Sized> Key for &K {
    fn write(&self, to: &mut KeyBytes) {
        (**self).write(to);
    }
}

impl<K: Key> Key for Option<K> {
    fn write(&self, to: &mut KeyBytes) {
        self.is_some().write(to);
        if let Some(key) = self {
            key.write(to);
        }
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Key for $number {
            #[inline]
            fn write(&self, to: &mut KeyBytes) {
                to.push(&self.to_be_bytes());
            }
        }
    )*};
}
numbers!(u8 u16 u32 u64 i16 i32 i64);

macro_rules! tuples {
    ($($($part:ident)*;)*) => {$(
        impl<$($part: Key),*> Key for ($($part,)*) {
            #[allow(non_snake_case, unused_variables, reason = "the parts are named as their types; the empty one has none")]
            fn write(&self, to: &mut KeyBytes) {
                let ($($part,)*) = self;
                $($part.write(to);)*
            }
        }
    )*};
}
tuples! { ; A; A B; A B C; A B C D; }

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Two keys are one only when they are equal, however long, wherever the border between their parts lies.
        #[test]
        fn bytes_tell_keys_apart(a in ("[ab\0\u{ff}]{0,40}", "[ab]{0,3}", any::<Option<u16>>()), b in ("[ab\0\u{ff}]{0,40}", "[ab]{0,3}", any::<Option<u16>>())) {
            prop_assert_eq!(KeyBytes::of(&a) == KeyBytes::of(&b), a == b);
            prop_assert!(KeyBytes::of(&a) == KeyBytes::of(&a.clone()));
        }
    }

    #[test]
    fn long_texts_keep_their_length() {
        let (long, longer) = ("x".repeat(300), "x".repeat(70_000));
        assert!(KeyBytes::of(&(long.as_str(), "y")) != KeyBytes::of(&(longer.as_str(), "y")));
        assert_eq!(KeyBytes::of(long.as_str()).as_slice().len(), 309);
        assert_eq!((KeyBytes::of(&7u64).heap(), KeyBytes::of(&()).as_slice().len()), (0, 0));
    }
}
