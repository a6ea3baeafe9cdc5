//! A permit while its answer is read: waiting for a reader is not work.
//!
//! Not for: readers who take nothing at all (a server has deadlines of its own for them). Always: an answer that is short, or whose end is there,
//! costs nothing more than its permit; one whose reader was waited for longer than a second in all, and longer than its maker, has no seat in the
//! cell any more, or those who read slowly would have them all. It stays one of its tenant's requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use super::Permit;
use super::permit::held;

/// Answers up to here, in bytes, fit into what lies between us and a reader who takes nothing: half of what HTTP/2 sends unasked.
const SHORT: usize = 32 << 10;
/// Between two looks at whose turn it is.
const LOOK: Duration = Duration::from_millis(100);
/// Looks at which it was the reader's turn, until he is called slow.
const PROMPT: u32 = 10;

/// The right to be at work on an answer, until its last byte.
#[derive(Debug)]
pub struct Reading {
    /// `None` once somebody looks now and then.
    permit: Option<Permit>,
    seen: Option<Arc<Seen>>,
    handed: usize,
}

#[derive(Debug)]
struct Seen {
    permit: Mutex<Permit>,
    is_readers_turn: AtomicBool,
}

impl Reading {
    /// Of an answer whose head is there.
    #[must_use]
    pub const fn new(permit: Permit) -> Self {
        Self { permit: Some(permit), seen: None, handed: 0 }
    }

    /// The reader asks for more.
    #[inline]
    pub fn asked(&self) {
        if let Some(seen) = &self.seen {
            seen.is_readers_turn.store(false, Ordering::Relaxed);
        }
    }

    /// So many bytes were handed to the reader, and they are not the last.
    #[inline]
    pub fn handed(&mut self, bytes: usize) {
        self.handed = self.handed.saturating_add(bytes);
        match &self.seen {
            Some(seen) => seen.is_readers_turn.store(true, Ordering::Relaxed),
            None if self.handed > SHORT => self.look_at(),
            None => {}
        }
    }

    #[cold]
    fn look_at(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        let Some(permit) = self.permit.take_if(|permit| permit.holds(held::SEAT)) else { return };
        let seen = Arc::new(Seen { permit: Mutex::new(permit), is_readers_turn: AtomicBool::new(true) });
        runtime.spawn(look(Arc::downgrade(&seen)));
        self.seen = Some(seen);
    }
}

/// Looks until the answer has ended, or its reader is slow.
async fn look(seen: Weak<Seen>) {
    let mut turns = Turns::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(seen) = seen.upgrade() else { return };
        if turns.saw(seen.is_readers_turn.load(Ordering::Relaxed)) {
            return seen.permit.lock().unwrap_or_else(PoisonError::into_inner).linger();
        }
    }
}

/// Whose turn it was, so far.
#[derive(Default)]
struct Turns {
    readers: u32,
    makers: u32,
}

impl Turns {
    /// One more look. Answers whether it is the reader who is slow.
    fn saw(&mut self, is_readers: bool) -> bool {
        let turns = if is_readers { &mut self.readers } else { &mut self.makers };
        *turns = turns.saturating_add(1);
        self.readers >= PROMPT && self.readers > self.makers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow_at(mut is_readers: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut turns = Turns::default();
        (1..1_000).find(|look| turns.saw(is_readers(*look)))
    }

    #[test]
    fn who_is_waited_for_longer_than_the_maker_is_slow() {
        assert_eq!(slow_at(|_| true), Some(PROMPT));
        // A little at a time, again and again.
        assert_eq!(slow_at(|look| look % 3 > 0), Some(14));
    }

    #[test]
    fn a_maker_at_work_keeps_his_seat() {
        assert_eq!(slow_at(|_| false), None);
        assert_eq!(slow_at(|look| look % 2 == 0), None);
    }
}
