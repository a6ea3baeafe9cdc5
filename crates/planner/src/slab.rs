//! State by number, found without a lock, a hash or an allocation: a directory of blocks of chunks, each made when one of its
//! numbers is first asked for.
//!
//! Always: a number's value is made once (its default) and stays where it is for the life of the slab; so the memory is bounded by the
//! highest numbers seen, in chunks of [`CHUNK`] or of what the slab's type says, and not by how many were active when. Tenants' numbers are
//! handed out one after the other, so a million tenants of 32 bytes are 32 MB, and nothing is ever to be reclaimed under somebody's feet. Numbers
//! beyond [`Slab::REACH`] share the values of smaller ones, which is unfair to both and harmless otherwise.

use std::sync::OnceLock;

use prefetch_index::prefetch_index;

/// Values in a chunk, where a slab's type does not say another number: right for numbers that are handed out one after the other. Where they are
/// drawn by lot, each first value makes a chunk, and smaller ones are right.
pub const CHUNK: usize = 4_096;
/// Chunks in a block: a block is about four million values. With few chunks the directory of a million tenants stays in the processor's
/// first cache, and a value costs one line of memory that is not at hand.
const BLOCK: usize = 1_024;
const BLOCKS: usize = 1_024;
/// [`Slab::REACH`] of slabs with chunks of [`CHUNK`].
pub const REACH: u64 = (CHUNK * BLOCK * BLOCKS) as u64;

type Chunk<T> = Box<[T]>;
type Block<T> = Box<[OnceLock<Chunk<T>>]>;

/// Values by number, in chunks of so many: a power of two.
pub struct Slab<T, const C: usize = CHUNK> {
    blocks: Box<[OnceLock<Block<T>>]>,
}

impl<T: Default, const C: usize> Slab<T, C> {
    /// Numbers that have a value of their own.
    pub const REACH: u64 = (C * BLOCK * BLOCKS) as u64;

    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        const { assert!(C.is_power_of_two(), "a chunk's size") };
        Self { blocks: empty(BLOCKS) }
    }

    /// The value of a number. Allocates only when it is the first of its chunk.
    #[inline]
    pub fn at(&self, number: u64) -> &T {
        // The remainder fits, and each index is below its bound.
        let at = (number % Self::REACH) as usize;
        let block = self.blocks[at / (C * BLOCK)].get_or_init(|| empty(BLOCK));
        let chunk = block[at / C % BLOCK].get_or_init(|| (0..C).map(|_| T::default()).collect());
        &chunk[at % C]
    }

    /// Has a number's value fetched into the processor's cache, if it is there, for whoever asks for it in a moment: the fetching
    /// goes on while other things are done.
    #[inline]
    pub fn expect(&self, number: u64) {
        let at = (number % Self::REACH) as usize;
        let chunk = self.blocks[at / (C * BLOCK)].get().and_then(|block| block[at / C % BLOCK].get());
        if let Some(chunk) = chunk {
            prefetch_index(chunk, at % C);
        }
    }

    /// The values of all chunks that are there, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let blocks = self.blocks.iter().enumerate().filter_map(|(b, block)| Some((b, block.get()?)));
        let chunks = blocks
            .flat_map(|(b, block)| block.iter().enumerate().filter_map(move |(c, chunk)| Some((b * BLOCK + c, chunk.get()?))));
        chunks.flat_map(|(c, chunk)| chunk.iter().enumerate().map(move |(n, value)| ((c * C + n) as u64, value)))
    }

    /// Bytes that values and directories take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().filter_map(OnceLock::get);
        let chunks: usize = blocks.clone().map(|block| block.iter().filter(|chunk| chunk.get().is_some()).count()).sum();
        BLOCKS * size_of::<OnceLock<Block<T>>>()
            + blocks.count() * BLOCK * size_of::<OnceLock<Chunk<T>>>()
            + chunks * C * size_of::<T>()
    }
}

impl<T: Default, const C: usize> Default for Slab<T, C> {
    fn default() -> Self {
        Self::new()
    }
}

fn empty<T>(n: usize) -> Box<[OnceLock<T>]> {
    (0..n).map(|_| OnceLock::new()).collect()
}

impl<T, const C: usize> std::fmt::Debug for Slab<T, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slab").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Barrier};

    use super::*;

    /// Threads that meet at a barrier and race for the same fresh chunks, again and again: every increment arrives at one value.
    #[test]
    fn one_value_each_however_many_race_for_it() {
        const THREADS: u64 = 8;
        const ROUNDS: u64 = 300;
        let slab: Arc<Slab<AtomicU64>> = Arc::new(Slab::new());
        let barrier = Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for t in 0..THREADS {
                let (slab, barrier) = (&slab, &barrier);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        // Another chunk each round, now and then another block.
                        let base = round * (CHUNK as u64) * 13_701 % REACH;
                        barrier.wait();
                        for n in 0..64 {
                            slab.at(base + (n * 37 + t) % 64).fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        for round in 0..ROUNDS {
            let base = round * (CHUNK as u64) * 13_701 % REACH;
            for n in 0..64 {
                assert_eq!(slab.at(base + n).load(Ordering::Relaxed), THREADS, "round {round}, value {n}");
            }
        }
    }

    #[test]
    fn numbers_have_values_of_their_own_and_memory_follows_what_was_asked_for() {
        let slab: Slab<AtomicU64> = Slab::new();
        let empty = slab.bytes();
        for n in [0, 1, 255, 256, 1 << 20, REACH - 1] {
            assert_eq!(slab.at(n).fetch_add(n + 1, Ordering::Relaxed), 0, "{n}");
        }
        assert_eq!(slab.at(256).load(Ordering::Relaxed), 257);
        assert!(slab.bytes() - empty < 3 * BLOCK * 24 + 5 * CHUNK * 8 + 1, "{}", slab.bytes() - empty);
        let numbers: Vec<u64> = slab.iter().filter(|(_, value)| value.load(Ordering::Relaxed) > 0).map(|(n, _)| n).collect();
        assert_eq!(numbers, [0, 1, 255, 256, 1 << 20, REACH - 1]);
        // Beyond the reach: no panic, a shared value.
        assert_eq!(slab.at(REACH).load(Ordering::Relaxed), 1);
        slab.at(u64::MAX);
    }

    #[test]
    fn small_chunks_are_a_map_by_number_too_and_take_less() {
        let (small, usual): (Slab<AtomicU64, 64>, Slab<AtomicU64>) = (Slab::new(), Slab::new());
        let reach = Slab::<AtomicU64, 64>::REACH;
        let numbers = [0, 63, 64, 1 << 16, (1 << 16) + 1, reach - 1];
        for n in numbers {
            assert_eq!(small.at(n).fetch_add(n + 1, Ordering::Relaxed), 0, "{n}");
            usual.at(n);
            small.expect(n);
        }
        small.expect(1 << 17);
        let found: Vec<u64> = small.iter().filter(|(_, value)| value.load(Ordering::Relaxed) > 0).map(|(n, _)| n).collect();
        assert_eq!(found, numbers);
        assert_eq!(small.at(reach).load(Ordering::Relaxed), 1, "beyond the reach");
        assert!(small.bytes() < usual.bytes());
    }
}
