//! Pauses between tries.

use std::hash::BuildHasher;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles from 50 ms to 5 s; each pause is a random half to whole of it, so that processes do not come back together.
#[derive(Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    pub(crate) fn next_delay(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.tries.min(7)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        jittered(whole)
    }
}

/// A random half to whole of a duration.
pub(crate) fn jittered(whole: Duration) -> Duration {
    // A fresh random state is the only randomness needed here, and the standard library has it.
    let random = std::collections::hash_map::RandomState::new().hash_one(0u8) % 1024;
    whole / 2 + whole / 2 * random as u32 / 1024
}
