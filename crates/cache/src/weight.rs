//! What a value weighs in memory.

use std::io::{self, Write};

use serde::Serialize;

/// Bytes of an entry beside its key and value: its place in the table and in line, the value's counters, the ledger's line.
const ENTRY: usize = 192;

/// Bytes of a value's JSON, which is near to what it takes in memory; counted, not kept. `None` when it has no JSON: it cannot be cached.
pub(crate) fn measure<V: Serialize>(value: &V) -> Option<usize> {
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).ok()?;
    Some(counter.0 + size_of::<V>())
}

/// Of a whole entry.
pub(crate) fn entry(key: usize, value: usize) -> u32 {
    u32::try_from(ENTRY + key + value).unwrap_or(u32::MAX)
}

struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
