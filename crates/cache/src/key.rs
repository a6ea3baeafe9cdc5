//! What a cached thing is called within its resource, as bytes.
//!
//! Always: keys of one type have the same bytes only when they are equal, also inside of tuples (texts carry their length, numbers have one
//! width). A key of up to [`INLINE`] bytes is built and kept without an allocation.

use std::fmt;

use uuid::Uuid;

/// Bytes that a key may have without an allocation.
pub const INLINE: usize = 16;

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
    Here(Short),
    There(Vec<u8>),
}

/// A key that needs no allocation. What is behind its end is zero, so that two are compared whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short {
    pub(crate) len: u8,
    pub(crate) bytes: [u8; INLINE],
}

impl Short {
    const EMPTY: Self = Self { len: 0, bytes: [0; INLINE] };
    /// Stands for one that is not short; equal to none that is. Its length fits in six bits, as all do.
    pub(crate) const NONE: Self = Self { len: 63, bytes: [0; INLINE] };

    /// All of it, as numbers.
    #[inline]
    pub(crate) const fn words(&self) -> [u64; 3] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.bytes;
        let (first, second) = (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]));
        [first, second, self.len as u64]
    }
}

impl KeyBytes {
    #[inline]
    pub(crate) fn of<K: Key + ?Sized>(key: &K) -> Self {
        let mut bytes = Self(Repr::Here(Short::EMPTY));
        key.write(&mut bytes);
        bytes
    }

    pub(crate) fn from_slice(slice: &[u8]) -> Self {
        let mut bytes = Self(Repr::Here(Short::EMPTY));
        bytes.push(slice);
        bytes
    }

    /// As it is kept: short, or not.
    #[inline]
    pub(crate) fn split(&self) -> Result<&Short, &[u8]> {
        match &self.0 {
            Repr::Here(short) => Ok(short),
            Repr::There(bytes) => Err(bytes),
        }
    }

    /// Writes bytes of a fixed number.
    #[inline]
    pub fn push(&mut self, more: &[u8]) {
        match &mut self.0 {
            Repr::Here(Short { len, bytes }) => {
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
            Repr::Here(short) => short.bytes.get(..usize::from(short.len)).unwrap_or_default(),
            Repr::There(bytes) => bytes,
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap(&self) -> usize {
        match &self.0 {
            Repr::Here(_) => 0,
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

impl fmt::Debug for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Short({} bytes)", self.len)
    }
}

/// A key may name a person: it is not for logs.
impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBytes({} bytes)", self.as_slice().len())
    }
}

impl Key for str {
    #[inline]
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
    #[inline]
    fn write(&self, to: &mut KeyBytes) {
        to.push(self.as_bytes());
    }
}

impl Key for bool {
    #[inline]
    fn write(&self, to: &mut KeyBytes) {
        to.push(&[u8::from(*self)]);
    }
}

impl<K: Key + ?Sized> Key for &K {
    #[inline]
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
