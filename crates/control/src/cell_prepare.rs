//! `cell.prepare`.

use crate::operation::step::Saga;

pub(crate) static SAGA: Saga = Saga { kind: "cell.prepare", steps: &[] };
