//! The heaviest of a stream of weighted keys, in bounded memory.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and top-k elements in data streams", 2005), in the weighted form of
//! Berinde, Indyk, Cormode, Strauss ("Space-optimal heavy hitters with strong error bounds", 2010). With room for `k` keys and a total weight of `n`,
//! always: `weight - error <= true weight <= weight`; `error <= n / k`; a key whose true weight is above `n / k` is there.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// See the module.
#[derive(Clone, Debug)]
pub struct Sketch<K> {
    room: usize,
    counts: HashMap<K, Count>,
    /// The same keys, lightest first.
    order: BTreeSet<(u64, K)>,
    total: u64,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// At most this.
    pub weight: u64,
    /// And at least this much less.
    pub error: u64,
}

impl<K: Clone + Ord + Hash> Sketch<K> {
    /// With room for so many keys, at least one.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { room: room.max(1), counts: HashMap::new(), order: BTreeSet::new(), total: 0 }
    }

    /// Adds weight to a key.
    pub fn add(&mut self, key: K, weight: u64) {
        if weight == 0 {
            return;
        }
        self.total = self.total.saturating_add(weight);
        let before = match self.counts.get(&key) {
            Some(count) => {
                self.order.remove(&(count.weight, key.clone()));
                *count
            }
            None if self.counts.len() < self.room => Count { weight: 0, error: 0 },
            // The lightest makes room, and what it weighed may have been the new one's.
            None => match self.order.pop_first() {
                Some((least, out)) => {
                    self.counts.remove(&out);
                    Count { weight: least, error: least }
                }
                None => Count { weight: 0, error: 0 },
            },
        };
        let count = Count { weight: before.weight.saturating_add(weight), ..before };
        self.order.insert((count.weight, key.clone()));
        self.counts.insert(key, count);
    }

    /// The heaviest, heaviest first.
    pub fn top(&self, most: usize) -> impl Iterator<Item = (&K, Count)> {
        self.order.iter().rev().take(most).filter_map(|(_, key)| Some((key, *self.counts.get(key)?)))
    }

    /// What is known of a key; `None`: it weighs at most `total / room`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<Count> {
        self.counts.get(key).copied()
    }

    /// All weight so far.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.clear();
        self.order.clear();
        self.total = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_exact_while_there_is_room() {
        let mut sketch = Sketch::new(3);
        for (key, weight) in [("a", 5), ("b", 1), ("a", 2), ("c", 9), ("d", 0)] {
            sketch.add(key, weight);
        }
        let top: Vec<_> = sketch.top(2).map(|(key, count)| (*key, count.weight, count.error)).collect();
        assert_eq!(top, [("c", 9, 0), ("a", 7, 0)]);
    }

    proptest! {
        #[test]
        fn it_keeps_its_bounds(room in 1usize..20, stream in prop::collection::vec((0u32..60, 1u64..1000), 0..400), skew in 1u32..4) {
            let mut sketch = Sketch::new(room);
            let mut truth: HashMap<u32, u64> = HashMap::new();
            for (key, weight) in stream {
                let key = key / skew.pow(2);
                sketch.add(key, weight);
                *truth.entry(key).or_default() += weight;
            }
            let total: u64 = truth.values().sum();
            prop_assert_eq!(sketch.total(), total);
            prop_assert!(sketch.counts.len() <= room && sketch.order.len() == sketch.counts.len());
            let bound = total / room as u64;
            for (key, weight) in &truth {
                match sketch.get(key) {
                    Some(count) => {
                        prop_assert!(count.weight - count.error <= *weight && *weight <= count.weight);
                        prop_assert!(count.error <= bound);
                    }
                    None => prop_assert!(*weight <= bound),
                }
            }
            let weights: Vec<u64> = sketch.top(room).map(|(_, count)| count.weight).collect();
            prop_assert!(weights.windows(2).all(|pair| pair[0] >= pair[1]));
        }
    }
}
