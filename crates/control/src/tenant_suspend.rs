//! `tenant.suspend`.

use crate::operation::step::Saga;

pub(crate) static SAGA: Saga = Saga { kind: "tenant.suspend", steps: &[] };
