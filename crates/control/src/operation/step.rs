//! What an operation is made of.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::work::Work;
use crate::error::Error;

/// What a step reaches, and so what must be on disk before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Only the catalog: runs inside the transaction that records it. Neighbours share one transaction.
    Catalog,
    /// A cell: everything before it is committed first, so that an undo after a crash knows of it.
    Cell,
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// On to the next.
    Done,
    /// Something else has to happen first: look again after this long, with a word for people.
    Wait(Duration, &'static str),
}

/// One step. Both directions are idempotent.
pub(crate) trait Step: Send + Sync {
    /// A word of the domain.
    fn name(&self) -> &'static str;

    /// What it reaches, in both directions.
    fn reach(&self) -> Reach;

    /// Does it.
    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>>;

    /// Takes it back, also where it was half done or not begun.
    fn undo<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>>;
}

/// A kind of operation.
pub(crate) struct Saga {
    /// `tenant.provision`.
    pub(crate) kind: &'static str,
    /// In order.
    pub(crate) steps: &'static [&'static dyn Step],
}

/// Every kind there is.
pub(crate) fn saga(kind: &str) -> Option<&'static Saga> {
    [
        &crate::provision::SAGA,
        &crate::tenant_suspend::SAGA,
        &crate::tenant_resume::SAGA,
        &crate::tenant_delete::SAGA,
        &crate::cell_prepare::SAGA,
        &crate::bundle_apply::SAGA,
    ]
    .into_iter()
    .find(|s| s.kind == kind)
}
