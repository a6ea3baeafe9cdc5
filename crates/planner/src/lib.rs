//! Pure decisions: placement, fair shares. No I/O.
