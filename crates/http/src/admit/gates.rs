//! The gates of all cells, by the cell's name.
//!
//! Always: a gate is made once, when its cell is first asked for, and stays for the life of the process (cells are few); finding one takes
//! no lock and writes to nothing.

use std::hash::BuildHasher;
use std::sync::OnceLock;

use insula_core::CellName;

use super::cell::{Desks, Gate};

/// Lists that cells are strewn over; a power of two.
const LISTS: usize = 64;

#[derive(Debug)]
pub(crate) struct Gates {
    lists: [OnceLock<Box<Node>>; LISTS],
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug)]
struct Node {
    cell: CellName,
    desks: Desks,
    next: OnceLock<Box<Node>>,
}

impl Default for Gates {
    fn default() -> Self {
        Self { lists: std::array::from_fn(|_| OnceLock::new()), hasher: foldhash::fast::RandomState::default() }
    }
}

impl Gates {
    /// The gate of a cell; made when it is not there.
    #[inline]
    pub(crate) fn of(&self, cell: &CellName, make: impl Fn() -> Gate) -> &Desks {
        let mut place = &self.lists[self.hasher.hash_one(cell.as_str()) as usize % LISTS];
        loop {
            let node =
                place.get_or_init(|| Box::new(Node { cell: cell.clone(), desks: Desks::new(make()), next: OnceLock::new() }));
            if node.cell == *cell {
                return &node.desks;
            }
            place = &node.next;
        }
    }

    /// All that are there.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Desks> {
        let nodes = self.lists.iter().flat_map(|list| std::iter::successors(list.get(), |node| node.next.get()));
        nodes.map(|node| &node.desks)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::config::AdmissionConfig;
    use super::super::tenant::Tenants;
    use super::super::ticks::Ticks;
    use super::*;

    /// Threads that ask for the same new cells at once, more than there are lists: one gate each.
    #[test]
    fn each_cell_has_one_gate_however_many_ask_at_once() {
        const CELLS: usize = 3 * LISTS;
        let (gates, made, config) = (Gates::default(), AtomicUsize::new(0), AdmissionConfig::default());
        let (tenants, names) =
            (Arc::new(Tenants::new()), (0..CELLS).map(|n| format!("cell-{n}").parse::<CellName>().unwrap()).collect::<Vec<_>>());
        let gate = |cell: &CellName| {
            made.fetch_add(1, Ordering::Relaxed);
            Gate::new(cell.clone(), &config, Arc::clone(&tenants), Ticks::by_hand())
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| names.iter().for_each(|name| assert_eq!(gates.of(name, || gate(name)).gate().name, *name)));
            }
        });
        assert_eq!((made.load(Ordering::Relaxed), gates.iter().count()), (CELLS, CELLS));
    }
}
