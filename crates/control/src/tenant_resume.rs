//! `tenant.resume`.

use crate::operation::step::Saga;

pub(crate) static SAGA: Saga = Saga { kind: "tenant.resume", steps: &[] };
