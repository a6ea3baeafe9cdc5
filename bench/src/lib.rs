//! Benchmarks: each row of the speed table as a ratio against a real peer, both measured in one run on one machine.
//!
//! For: `make bench`, which runs every row, prints the table and writes `bench/RESULTS.md`; and one row by name while working on it.
//! Not for: absolute records. Always: sides alternate round by round, so that the machine's moods hit both; figures are medians; a ratio is
//! the median of same-round ratios; the machine, and the share of it that others used, stand beside the figures.
//!
//! To add a row: a module in `rows/` with a `pub(crate) const ROW: Row`, named in [`rows::ROWS`].

pub mod load;
pub mod machine;
pub mod report;
pub mod rounds;
pub mod row;
pub mod rows;

pub use rounds::{Pair, Samples, interleave};
pub use row::{Outcome, Row, Target};
