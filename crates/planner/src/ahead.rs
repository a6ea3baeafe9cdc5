//! In what order work starts that was taken ahead: fairly again, so that a newcomer does not wait behind all of it.
//!
//! A worker takes some work before it has places for it ([`lanes`](crate::lanes) chose it, in a fair order). Who comes meanwhile is chosen next, and would
//! then stand at the end of the line. So the line is start-time fair queueing as well: in it a tenant that had nothing there starts at
//! the line's present, beside everybody's next and not behind their last.
//! Not for: choosing what is taken. Always:
//! - a newcomer's first waits, with W places, for at most one of each tenant in the line, divided by W, whatever the others have there;
//! - what one tenant has starts in the order in which it was taken;
//! - everything starts: shares are those by which it was taken, only the order inside of what was taken ahead is another.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::lanes::UNIT;

/// What waits for a place. `T` is dropped or given out, never looked at.
#[derive(Debug)]
pub struct Ahead<T> {
    /// Start tag of what was given out last.
    present: u64,
    /// Counts what joined: among equal tags the first is first, and a tenant's own keep their order.
    order: u64,
    tenants: HashMap<i64, Stand>,
    waiting: BinaryHeap<Reverse<Item<T>>>,
}

#[derive(Debug, Default)]
struct Stand {
    /// Where its next starts.
    next: u64,
    waiting: usize,
}

#[derive(Debug)]
struct Item<T> {
    tag: u64,
    order: u64,
    tenant: i64,
    what: T,
}

impl<T> Default for Ahead<T> {
    fn default() -> Self {
        Self { present: 0, order: 0, tenants: HashMap::default(), waiting: BinaryHeap::new() }
    }
}

impl<T> Ahead<T> {
    /// A tenant's work joins the line. `cost` in units of the lanes', at least one.
    pub fn join(&mut self, tenant: i64, weight: u32, cost: u32, what: T) {
        let stand = self.tenants.entry(tenant).or_default();
        let tag = stand.next.max(self.present);
        stand.next = tag + UNIT * u64::from(cost.max(1)) / u64::from(weight.max(1));
        stand.waiting += 1;
        self.order += 1;
        self.waiting.push(Reverse(Item { tag, order: self.order, tenant, what }));
    }

    /// What starts next.
    pub fn start(&mut self) -> Option<T> {
        let Reverse(Item { tag, tenant, what, .. }) = self.waiting.pop()?;
        self.present = self.present.max(tag);
        self.left(tenant);
        Some(what)
    }

    /// Takes out what `which` says, in the order in which it would have started.
    pub fn withdraw(&mut self, which: impl Fn(&T) -> bool) -> Vec<T> {
        let all = std::mem::take(&mut self.waiting).into_sorted_vec().into_iter().rev().map(|Reverse(item)| item);
        let (out, stays): (Vec<_>, Vec<_>) = all.partition(|item| which(&item.what));
        self.waiting = stays.into_iter().map(Reverse).collect();
        out.iter().for_each(|item| self.left(item.tenant));
        out.into_iter().map(|item| item.what).collect()
    }

    /// How much waits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets who has nothing here any more and owes nothing: seldom, all at once.
    fn left(&mut self, tenant: i64) {
        if let Some(stand) = self.tenants.get_mut(&tenant) {
            stand.waiting -= 1;
        }
        if self.tenants.len() > 2 * self.waiting.len() + 1_024 {
            let present = self.present;
            self.tenants.retain(|_, stand| stand.waiting > 0 || stand.next > present);
        }
    }
}

impl<T> PartialEq for Item<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.tag, self.order) == (other.tag, other.order)
    }
}

impl<T> Eq for Item<T> {}

impl<T> PartialOrd for Item<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Item<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.tag, self.order).cmp(&(other.tag, other.order))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_newcomer_stands_beside_the_others_and_not_behind_them() {
        let mut line = Ahead::default();
        (0..1_000).for_each(|n| line.join(1, 1, 1, (1, n)));
        for n in 0..10 {
            assert_eq!(line.start(), Some((1, n)));
        }
        (0..5).for_each(|n| line.join(2, 1, 1, (2, n)));
        let next: Vec<_> = std::iter::from_fn(|| line.start()).take(12).collect();
        let of = |who: i32| next.iter().filter(|(tenant, _)| *tenant == who).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(of(2), [0, 1, 2, 3, 4], "one by one with the other");
        assert_eq!(of(1), [10, 11, 12, 13, 14, 15, 16]);
        assert!(next[0].0 == 2 || next[1].0 == 2);
    }

    #[test]
    fn weights_hold_inside_of_what_was_taken() {
        let mut line = Ahead::default();
        for n in 0..1_200 {
            line.join(1, 1, 1, 1);
            line.join(2, 3, 1, 2);
            assert_eq!(line.len(), 2 * n + 2);
        }
        let first: Vec<i32> = std::iter::from_fn(|| line.start()).take(400).collect();
        assert_eq!(first.iter().filter(|who| **who == 1).count(), 100);
    }

    #[test]
    fn who_was_served_does_not_start_afresh_by_leaving() {
        let mut line = Ahead::default();
        // Always one at a time: each costs ten, the other's one.
        let mut served = [0, 0];
        line.join(0, 1, 10, 0);
        line.join(1, 1, 1, 1);
        for _ in 0..1_100 {
            let who = line.start().expect("one of them");
            served[who] += 1;
            line.join(i64::try_from(who).expect("small"), 1, if who == 0 { 10 } else { 1 }, who);
        }
        assert_eq!(served, [100, 1_000]);
    }

    proptest! {
        /// Everything that joins starts once, each tenant's in its order, and nobody is remembered for ever.
        #[test]
        fn nothing_is_lost(steps in proptest::collection::vec((0i64..2_000, 1u32..9, 0u32..9, 0u8..3), 1..3_000)) {
            let mut line = Ahead::default();
            let (mut joined, mut seen) = (0u64, HashMap::<i64, u64>::new());
            let mut started = 0u64;
            let mut check = |(tenant, n): (i64, u64)| {
                let last = seen.insert(tenant, n);
                assert!(last.is_none_or(|last| last < n), "out of order");
                started += 1;
            };
            for (tenant, weight, cost, what) in steps {
                if what == 0 {
                    line.start().into_iter().for_each(&mut check);
                } else {
                    joined += 1;
                    line.join(tenant, weight, cost, (tenant, joined));
                }
                prop_assert!(line.tenants.len() <= 2 * line.len() + 2_100);
            }
            line.withdraw(|(tenant, _)| tenant % 7 == 3).into_iter().for_each(&mut check);
            while let Some(next) = line.start() {
                check(next);
            }
            prop_assert_eq!(joined, started);
        }
    }
}
