//! Seats at work in one cell: how many are taken, how many there may be.
//!
//! Not for: who waits for one ([`super::cell`] has the line), or how many there should be (`planner::gradient`).
//! Always: no more are at work than the limit was when they sat down. A cell that is not busy has no counter that all threads write: each of a few
//! *desks* keeps some free seats at hand, which count as taken. They are called in when somebody finds no other.

use std::sync::atomic::{AtomicU32, Ordering};

/// Threads that write the same counters go by different desks, as far as there are that many.
pub(super) const DESKS: usize = 8;

/// Seats that a desk keeps at hand.
const AT_HAND: u32 = 8;
/// They are kept while no more than one in so many is taken. As they count for the peak, a limit is used when three eighths are at work, not half.
const EASY: u32 = 8;

/// On cache lines of its own (two, because processors fetch them in pairs): who only reads what lies beside it is not held up by who writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

#[derive(Debug)]
pub(super) struct Seats {
    /// At work or at hand.
    taken: Apart<AtomicU32>,
    at_hand: [Apart<AtomicU32>; DESKS],
    limit: AtomicU32,
    waiting: AtomicU32,
    peak: AtomicU32,
}

impl Seats {
    pub(super) fn new(limit: u32) -> Self {
        let limit = AtomicU32::new(limit);
        Self { taken: Apart::default(), at_hand: Default::default(), limit, waiting: AtomicU32::new(0), peak: AtomicU32::new(0) }
    }

    /// Takes a seat by a desk. When it did not, there may still be one: see [`Seats::take_any`].
    #[inline]
    pub(super) fn take(&self, desk: usize) -> bool {
        let limit = self.limit();
        // A limit that has shrunk holds for seats at hand, too.
        if self.taken.0.load(Ordering::Relaxed) <= limit && take_one(&self.at_hand[desk].0) {
            return true;
        }
        let before = self.taken.0.fetch_add(1, Ordering::SeqCst);
        if before >= limit {
            self.give_back();
            return false;
        }
        if before >= self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(before + 1, Ordering::Relaxed);
        }
        true
    }

    /// Takes a seat that is free or at hand anywhere. Afterwards, taken or not, see who waits: for a moment others may have found none.
    #[cold]
    pub(super) fn take_any(&self) -> bool {
        self.take_free() || (self.call_in() && self.take_free())
    }

    fn take_free(&self) -> bool {
        let limit = self.limit();
        let taken = self.taken.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < limit).then_some(n + 1));
        taken.is_ok_and(|before| {
            self.peak.fetch_max(before + 1, Ordering::Relaxed);
            true
        })
    }

    /// Whether any seats were at hand, which are free now.
    fn call_in(&self) -> bool {
        let called: u32 = self.at_hand.iter().map(|seats| seats.0.swap(0, Ordering::SeqCst)).sum();
        self.taken.0.fetch_sub(called, Ordering::SeqCst);
        called > 0
    }

    /// Gives a seat back to a desk. Afterwards, see who waits.
    #[inline]
    pub(super) fn leave(&self, desk: usize) {
        let easy = self.taken.0.load(Ordering::Relaxed) <= self.limit() / EASY;
        let at_hand = &self.at_hand[desk].0;
        if easy && at_hand.load(Ordering::Relaxed) < AT_HAND {
            at_hand.fetch_add(1, Ordering::SeqCst);
        } else {
            self.give_back();
        }
    }

    /// Gives a seat back to all. Afterwards, see who waits.
    #[inline]
    pub(super) fn give_back(&self) {
        self.taken.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many wait. Told and asked in one order with seats that are given back: either the leaver sees who waits, or who waits sees the seat.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(super) fn tell_waiting(&self, n: u32) {
        self.waiting.store(n, Ordering::SeqCst);
    }

    #[inline]
    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Answers the limit before.
    pub(super) fn change_limit(&self, limit: u32) -> u32 {
        self.limit.swap(limit, Ordering::Relaxed)
    }

    /// At work; exact when nobody comes or goes.
    pub(super) fn in_flight(&self) -> u32 {
        let at_hand = self.at_hand.iter().map(|seats| seats.0.load(Ordering::Relaxed)).sum();
        self.taken.0.load(Ordering::Relaxed).saturating_sub(at_hand)
    }

    /// Most that were taken at once since this was last asked.
    pub(super) fn take_peak(&self) -> u32 {
        self.peak.swap(self.taken.0.load(Ordering::Relaxed), Ordering::Relaxed)
    }
}

#[inline]
fn take_one(seats: &AtomicU32) -> bool {
    let mut there = seats.load(Ordering::Relaxed);
    while there > 0 {
        match seats.compare_exchange_weak(there, there - 1, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => there = now,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_hand_anywhere_is_there_for_whoever_needs_it() {
        let seats = Seats::new(128);
        // Sixteen sit by each of four desks, and leave as far as is easy: some stay at hand.
        (0..16).for_each(|n| assert!(seats.take(n % 4)));
        (0..16).for_each(|n| seats.leave(n % 4));
        assert_eq!((seats.in_flight(), seats.taken.0.load(Ordering::Relaxed)), (0, 16));
        let sat = std::iter::from_fn(|| (seats.take(7) || seats.take_any()).then_some(())).count();
        assert_eq!((sat, seats.in_flight()), (128, 128));
    }

    #[test]
    fn a_limit_that_shrinks_holds_for_seats_at_hand() {
        let seats = Seats::new(128);
        (0..8).for_each(|_| assert!(seats.take(0)));
        (0..8).for_each(|_| seats.leave(0));
        seats.change_limit(4);
        let sat = std::iter::from_fn(|| (seats.take(0) || seats.take_any()).then_some(())).count();
        assert_eq!(sat, 4);
    }

    #[test]
    fn a_busy_cell_keeps_nothing_at_hand() {
        let seats = Seats::new(16);
        (0..16).for_each(|_| assert!(seats.take(0)));
        for _ in 0..4 {
            seats.leave(0);
            assert_eq!(seats.in_flight(), seats.taken.0.load(Ordering::Relaxed));
            assert!(seats.take(1));
        }
    }

    /// Threads sit and leave at random, by any desk: never more than the limit, and in the end nothing is missing.
    #[test]
    fn threads_together_are_never_above_the_limit() {
        for limit in [3, 16, 64] {
            let (seats, at_work) = (Seats::new(limit), AtomicU32::new(0));
            std::thread::scope(|scope| {
                for t in 0..8usize {
                    let (seats, at_work) = (&seats, &at_work);
                    scope.spawn(move || {
                        let mut mine = Vec::new();
                        for n in 0..20_000usize {
                            let desk = (t + n / 64) % DESKS;
                            if mine.len() < n % 13 && (seats.take(desk) || seats.take_any()) {
                                assert!(at_work.fetch_add(1, Ordering::SeqCst) < limit, "too many");
                                mine.push(desk);
                            } else if let Some(desk) = mine.pop() {
                                at_work.fetch_sub(1, Ordering::SeqCst);
                                seats.leave(desk);
                            }
                        }
                        for desk in mine {
                            at_work.fetch_sub(1, Ordering::SeqCst);
                            seats.leave(desk);
                        }
                    });
                }
            });
            assert_eq!(seats.in_flight(), 0);
            let sat = std::iter::from_fn(|| seats.take_any().then_some(())).count();
            assert_eq!(sat, limit as usize, "a seat was lost or made");
        }
    }
}
