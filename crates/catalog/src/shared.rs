//! One of each: what many routes have alike is in memory once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Fewer than so many are never swept.
const FEW: usize = 1024;

/// Values that are in use somewhere, and some that were.
pub(crate) struct Shared<T> {
    known: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: FEW }
    }
}

impl<T: Eq + Hash> Shared<T> {
    /// The one that is like `value`.
    pub(crate) fn one(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.known.get(&value) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = (self.known.len() * 2).max(FEW);
        }
        let new = Arc::new(value);
        self.known.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_one_and_what_nobody_has_is_forgotten() {
        let mut shared = Shared::default();
        let kept = shared.one("kept".to_owned());
        for n in 0..10 * FEW {
            assert!(Arc::ptr_eq(&kept, &shared.one("kept".to_owned())));
            assert_eq!(*shared.one(n.to_string()), n.to_string());
        }
        assert!(shared.known.len() <= FEW, "{}", shared.known.len());
        // Those that are in use stay, however many.
        let all: Vec<_> = (0..5 * FEW).map(|n| shared.one(n.to_string())).collect();
        assert!(all.iter().enumerate().all(|(n, one)| Arc::ptr_eq(one, &shared.one(n.to_string()))));
    }
}
