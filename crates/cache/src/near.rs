//! Where a value lies, in half the bits of an address: enough to have it fetched into the processor's cache before the entry that holds it has been
//! read, which is when its address would be known.
//!
//! Not for: reaching the value. Always: nothing is read by it; one that is wrong costs a fetch that nobody needed.

use std::sync::Arc;

use prefetch_index::prefetch_index;

use crate::shard::Held;

/// Bits of an address that are always 0: allocations are aligned to 16 bytes.
const ALIGN: u32 = 4;
/// Bits of an address that are known: 64 GiB, in which a process's allocations mostly lie together.
const KNOWN: u32 = u32::BITS + ALIGN;
/// Bytes of an [`Arc`]'s two counts, which lie before the value; to take a value is to write there.
const COUNTS: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Near(u32);

impl Near {
    pub(crate) fn of(held: &Held) -> Self {
        let at = held.as_ref().map_or(0, |value| Arc::as_ptr(value).addr().saturating_sub(COUNTS));
        // The low half of what is left.
        Self((at >> ALIGN) as u32)
    }

    /// Has the value fetched, if it is in the same 64 GiB as `beside`.
    #[inline]
    pub(crate) fn fetch<T>(self, beside: &[T]) {
        let base = beside.as_ptr().addr();
        let at = base >> KNOWN << KNOWN | (self.0 as usize) << ALIGN;
        let nothing: &[u8] = &[];
        prefetch_index(nothing, at.wrapping_sub(nothing.as_ptr().addr()));
    }
}
