//! Every row, in the order of the speed table. A row is one module with `pub const ROW: Row`.

use crate::row::Row;

/// All of them.
pub const ROWS: &[Row] = &[];
