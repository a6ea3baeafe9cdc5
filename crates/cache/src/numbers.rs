//! Resources by a small number, so that an entry names its resource in a byte.
//!
//! Always: two resources never have one number, and a number is never another resource's later. Resources are constants of an application, so they are
//! few; what comes after [`MOST`] of them has no number, and is not remembered.

use std::sync::atomic::{AtomicU64, Ordering};

/// Resources that can be told apart.
pub(crate) const MOST: usize = 255;
/// Nobody's number.
pub(crate) const NONE: u8 = 0;

#[derive(Debug)]
pub(crate) struct Numbers([AtomicU64; MOST]);

impl Default for Numbers {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Numbers {
    /// The number of the resource of that id; [`NONE`] when there is no room for it.
    #[inline]
    pub(crate) fn of(&self, id: u64) -> u8 {
        let start = (id % MOST as u64) as usize;
        match self.0.get(start) {
            // Numbers begin with 1, and fit.
            Some(known) if known.load(Ordering::Relaxed) == id && id != 0 => start as u8 + 1,
            _ => self.seek(id, start),
        }
    }

    #[cold]
    fn seek(&self, id: u64, start: usize) -> u8 {
        // 0 is a place where nobody is yet.
        if id == 0 {
            return NONE;
        }
        for at in (start..MOST).chain(0..start) {
            let Some(place) = self.0.get(at) else { break };
            match place.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return at as u8 + 1,
                Err(known) if known == id => return at as u8 + 1,
                Err(_) => {}
            }
        }
        NONE
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// More ids than there are numbers, half of them with one start, from four threads at once.
    #[test]
    fn no_two_have_one_number_and_it_stays() {
        let numbers = Numbers::default();
        let ids: Vec<u64> = (1..=200).flat_map(|n| [n, n * MOST as u64]).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| ids.iter().for_each(|id| assert_eq!(numbers.of(*id), numbers.of(*id))));
            }
        });
        let given: Vec<u8> = ids.iter().map(|id| numbers.of(*id)).filter(|number| *number != NONE).collect();
        assert_eq!(given.len(), MOST);
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), MOST);
        assert_eq!(numbers.of(0), NONE);
    }
}
