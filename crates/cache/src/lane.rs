//! In what order one tenant's entries give way: least frequently used first, by S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all
//! you need for cache eviction", SOSP 2023).
//!
//! New entries wait in a small queue, a tenth of what the tenant has; those that were used there move to the main one, which gives an entry
//! another round for each of its last three uses. Whoever comes back soon after it left the small queue goes to the main one
//! at once. Not for: whose entries give way ([`insula_planner::memory`]). Always: a hit changes no queue, only the entry's own count of uses.

use std::collections::VecDeque;

/// Uses that an entry remembers.
pub(crate) const MOST_USES: u8 = 3;
/// The small queue's part, one in so many.
const SMALL: u64 = 10;

/// An entry's place in line. Whether the entry is still there is for its owner to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) hash: u64,
    pub(crate) stamp: u32,
    pub(crate) main: bool,
}

/// One tenant's queues.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    small: VecDeque<(u64, u32)>,
    main: VecDeque<(u64, u32)>,
    /// Bytes of the entries in each queue that are there.
    small_bytes: u64,
    main_bytes: u64,
    /// Entries that are there.
    live: usize,
    /// Marks of what left the small queue unused, by a part of their hashes: a newer one takes an older one's place.
    ghosts: Vec<u32>,
}

impl Lane {
    /// A new entry joins; answers whether the main queue has it.
    pub(crate) fn join(&mut self, hash: u64, stamp: u32, bytes: u32) -> bool {
        let main = self.remembers(hash);
        self.live += 1;
        self.push(Ticket { hash, stamp, main }, bytes);
        main
    }

    /// The next in line; [`Lane::put_back`] or [`Lane::gone`] says what became of it. Tickets of entries that left otherwise come as well.
    pub(crate) fn next(&mut self) -> Option<Ticket> {
        let small = self.small_bytes * SMALL >= self.small_bytes + self.main_bytes;
        let ticket = |main: bool| move |(hash, stamp)| Ticket { hash, stamp, main };
        let (first, second) = if small { (&mut self.small, &mut self.main) } else { (&mut self.main, &mut self.small) };
        first.pop_front().map(ticket(!small)).or_else(|| second.pop_front().map(ticket(small)))
    }

    /// It was used: another round, in the main queue.
    pub(crate) fn put_back(&mut self, ticket: Ticket, bytes: u32) {
        self.weigh(ticket.main, bytes, false);
        self.push(Ticket { main: true, ..ticket }, bytes);
    }

    /// An entry left.
    pub(crate) fn gone(&mut self, main: bool, bytes: u32) {
        self.weigh(main, bytes, false);
        self.live = self.live.saturating_sub(1);
    }

    /// Remembers one that left the small queue unused.
    pub(crate) fn remember(&mut self, hash: u64) {
        // As many marks as entries, about; a longer list begins empty.
        let wanted = self.live.next_power_of_two().clamp(8, 1 << 20);
        if self.ghosts.len() < wanted {
            self.ghosts = vec![0; wanted * 2];
        }
        let at = self.ghost_at(hash);
        if let Some(ghost) = self.ghosts.get_mut(at) {
            *ghost = mark(hash);
        }
    }

    /// Whether nobody is left.
    pub(crate) const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Takes out the tickets of entries that left, once they are the most.
    pub(crate) fn tidy(&mut self, is_there: impl Fn(u64, u32) -> bool) {
        if self.small.len() + self.main.len() > 2 * self.live + 16 {
            self.small.retain(|(hash, stamp)| is_there(*hash, *stamp));
            self.main.retain(|(hash, stamp)| is_there(*hash, *stamp));
            self.small.shrink_to(2 * self.live);
            self.main.shrink_to(2 * self.live);
        }
    }

    fn push(&mut self, ticket: Ticket, bytes: u32) {
        let queue = if ticket.main { &mut self.main } else { &mut self.small };
        queue.push_back((ticket.hash, ticket.stamp));
        self.weigh(ticket.main, bytes, true);
    }

    fn weigh(&mut self, main: bool, bytes: u32, more: bool) {
        let of = if main { &mut self.main_bytes } else { &mut self.small_bytes };
        *of = if more { *of + u64::from(bytes) } else { of.saturating_sub(u64::from(bytes)) };
    }

    fn remembers(&mut self, hash: u64) -> bool {
        let at = self.ghost_at(hash);
        self.ghosts.get_mut(at).is_some_and(|ghost| *ghost == mark(hash) && std::mem::take(ghost) > 0)
    }

    fn ghost_at(&self, hash: u64) -> usize {
        // The remainder fits.
        if self.ghosts.is_empty() { 0 } else { (hash % self.ghosts.len() as u64) as usize }
    }
}

/// Never 0, which is no mark.
const fn mark(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}
