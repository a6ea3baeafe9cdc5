//! The snapshot file's bytes.
//!
//! ```text
//! head    magic "insulasn", format u32, 0 u32, contact i64 (Unix milliseconds), first 8 bytes of SHA-256 of these: 32 bytes, written over in place
//! body    records: kind u8, length u32, payload
//! ```
//! Records: [`META`] first; pages as JSON; blocks of tenants, and before them the words that they refer to by number; [`END`] with the
//! SHA-256 of the body before it. Integers are little-endian or LEB128.
//!
//! Always: reading takes any bytes, and answers an error for what is not a whole file of this format.

use std::io::{Read, Write};

use aws_lc_rs::digest::{Context, SHA256, digest};

use crate::Error;

/// Grows when a reader of the one before could not read it.
pub(super) const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"insulasn";
pub(super) const HEAD: usize = 32;

/// JSON of [`super::Meta`].
pub(super) const META: u8 = 1;
/// JSON of a [`crate::row::Page`].
pub(super) const PAGE: u8 = 2;
/// JSON of a plan's name, features and limits.
pub(super) const VARIANT: u8 = 3;
/// JSON of settings.
pub(super) const SETTINGS: u8 = 4;
/// JSON of a database's identity.
pub(super) const HOME: u8 = 5;
/// Tenants.
pub(super) const TENANTS: u8 = 6;
/// SHA-256 of all records before.
pub(super) const END: u8 = 255;

/// The longest record.
const MOST: usize = 256 << 20;

pub(super) fn bad(what: impl Into<String>) -> Error {
    Error::Disk(what.into())
}

pub(super) fn io(error: &std::io::Error) -> Error {
    bad(error.to_string())
}

/// The head for a time of contact.
pub(super) fn head(contact: i64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let mut to = head.iter_mut();
    let parts = MAGIC.iter().copied().chain(FORMAT.to_le_bytes()).chain([0; 4]).chain(contact.to_le_bytes());
    to.by_ref().zip(parts).for_each(|(to, from)| *to = from);
    let sum = digest(&SHA256, head.get(..24).unwrap_or_default());
    head.iter_mut().skip(24).zip(sum.as_ref()).for_each(|(to, from)| *to = *from);
    head
}

/// The time of contact; `None` when the head is damaged by itself (a power cut while it was written over).
pub(super) fn read_head(head: &[u8; HEAD]) -> Result<Option<i64>, Error> {
    if !head.starts_with(MAGIC) {
        return Err(bad("this is no snapshot of a catalog"));
    }
    let mut input = Input(head.get(8..).unwrap_or_default());
    let format = u32::from_le_bytes(input.array()?);
    if format != FORMAT {
        return Err(bad(format!("it has format {format}, and this program reads {FORMAT}")));
    }
    input.take(4)?;
    let contact = i64::from_le_bytes(input.array()?);
    Ok((*head == self::head(contact)).then_some(contact))
}

/// Writes records, and their sum at the end.
pub(super) struct Records<W> {
    to: W,
    sum: Context,
}

impl<W: Write> Records<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, sum: Context::new(&SHA256) }
    }

    pub(super) fn put(&mut self, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(std::io::Error::other)?;
        let mut head = [kind, 0, 0, 0, 0];
        head.iter_mut().skip(1).zip(length.to_le_bytes()).for_each(|(to, from)| *to = from);
        for part in [&head[..], payload] {
            self.sum.update(part);
            self.to.write_all(part)?;
        }
        Ok(())
    }

    pub(super) fn json(&mut self, kind: u8, value: &impl serde::Serialize) -> std::io::Result<()> {
        self.put(kind, &serde_json::to_vec(value)?)
    }

    pub(super) fn finish(mut self) -> std::io::Result<W> {
        let sum = self.sum.clone().finish();
        self.put(END, sum.as_ref())?;
        Ok(self.to)
    }
}

/// Reads records, and holds them to their sum.
pub(super) struct Recorded<R> {
    from: R,
    sum: Context,
    payload: Vec<u8>,
}

impl<R: Read> Recorded<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, sum: Context::new(&SHA256), payload: Vec::new() }
    }

    /// The next record; `None` after the last, when the sum is right.
    pub(super) fn next(&mut self) -> Result<Option<(u8, &[u8])>, Error> {
        let mut head = [0; 5];
        self.from.read_exact(&mut head).map_err(|e| io(&e))?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        if length > MOST {
            return Err(bad("a record is too long"));
        }
        // Not all at once: a length that is wrong is not to take the memory.
        self.payload.clear();
        let read = self.from.by_ref().take(length as u64).read_to_end(&mut self.payload).map_err(|e| io(&e))?;
        if read != length {
            return Err(bad("it ends in the midst of a record"));
        }
        if kind == END {
            let sum = self.sum.clone().finish();
            return if *sum.as_ref() == self.payload { Ok(None) } else { Err(bad("its checksum is wrong")) };
        }
        self.sum.update(&head);
        self.sum.update(&self.payload);
        Ok(Some((kind, &self.payload)))
    }
}

pub(super) fn put_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

pub(super) fn put_text(to: &mut Vec<u8>, text: &str) {
    put_number(to, text.len() as u64);
    to.extend_from_slice(text.as_bytes());
}

/// Bytes that are read from the front.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let (now, later) = self.0.split_at_checked(n).ok_or_else(|| bad("a record ends too early"))?;
        self.0 = later;
        Ok(now)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N)?.try_into().map_err(|_| bad("a record ends too early"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(bad("a number is too long"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Error> {
        i64::try_from(self.number()?).map_err(|_| bad("a number is too large"))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Error> {
        let length = usize::try_from(self.number()?).map_err(|_| bad("a text is too long"))?;
        std::str::from_utf8(self.take(length)?).map_err(|_| bad("a text is none"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_texts_come_back(number in any::<u64>(), text in ".{0,40}") {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            put_text(&mut bytes, &text);
            let mut input = Input(&bytes);
            prop_assert_eq!(input.number().unwrap(), number);
            prop_assert_eq!(input.text().unwrap(), text.as_str());
            prop_assert!(input.0.is_empty());
        }
    }

    #[test]
    fn a_head_tells_the_contact_and_notices_damage() {
        let mut head = head(1_700_000_000_123);
        assert_eq!(read_head(&head).unwrap(), Some(1_700_000_000_123));
        head[17] ^= 1;
        assert_eq!(read_head(&head).unwrap(), None);
        head[8] = 9;
        assert!(read_head(&head).unwrap_err().to_string().contains("format 9"));
        assert!(read_head(&[0; HEAD]).is_err());
    }
}
