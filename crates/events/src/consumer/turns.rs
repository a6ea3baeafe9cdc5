//! Whose event is next: tenants take turns, and of one tenant one is at work at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

/// Lines of tenants `W` with what waits in them, `T`.
pub(crate) struct Turns<W, T> {
    lines: HashMap<W, VecDeque<T>>,
    /// Those with something waiting and nothing at work, in the order of their turns.
    ready: VecDeque<W>,
    busy: HashSet<W>,
    most: usize,
}

impl<W: Clone + Eq + Hash, T> Turns<W, T> {
    /// At most `most` at work.
    pub(crate) fn new(most: usize) -> Self {
        Self { lines: HashMap::new(), ready: VecDeque::new(), busy: HashSet::new(), most }
    }

    pub(crate) fn put(&mut self, whose: W, what: T) {
        let line = self.lines.entry(whose.clone()).or_default();
        if line.is_empty() && !self.busy.contains(&whose) {
            self.ready.push_back(whose);
        }
        line.push_back(what);
    }

    /// The next that may begin.
    pub(crate) fn next(&mut self) -> Option<(W, T)> {
        if self.busy.len() >= self.most {
            return None;
        }
        let whose = self.ready.pop_front()?;
        let what = self.lines.get_mut(&whose)?.pop_front()?;
        self.busy.insert(whose.clone());
        Some((whose, what))
    }

    /// What was at work for somebody has ended.
    pub(crate) fn ended(&mut self, whose: W) {
        self.busy.remove(&whose);
        match self.lines.get(&whose) {
            Some(line) if !line.is_empty() => self.ready.push_back(whose),
            _ => {
                self.lines.remove(&whose);
            }
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lines.values().map(VecDeque::len).sum()
    }

    /// Whatever waits.
    pub(crate) fn rest(&mut self) -> Vec<T> {
        self.ready.clear();
        self.lines.drain().flat_map(|(_, line)| line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Turns;

    #[test]
    fn tenants_take_turns_and_one_of_each_is_at_work() {
        let mut turns = Turns::new(2);
        for n in 0..3 {
            turns.put('a', n);
        }
        turns.put('b', 10);
        turns.put('c', 20);
        assert_eq!((turns.next(), turns.next(), turns.next()), (Some(('a', 0)), Some(('b', 10)), None));
        turns.ended('a');
        assert_eq!((turns.next(), turns.next()), (Some(('c', 20)), None), "not a again, before c");
        turns.ended('b');
        assert_eq!((turns.next(), turns.next()), (Some(('a', 1)), None));
        turns.ended('c');
        assert_eq!(turns.next(), None, "a's third waits for its second, although there is room");
        turns.ended('a');
        assert_eq!(turns.next(), Some(('a', 2)));
        turns.put('a', 3);
        turns.put('d', 30);
        assert_eq!(turns.rest().len(), 2);
        turns.ended('a');
        assert_eq!(turns.next(), None);
    }
}
