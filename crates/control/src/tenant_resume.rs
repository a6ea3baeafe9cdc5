//! `tenant.resume`: ends a suspension, or takes a deletion back while nothing is erased.
//!
//! Always in this order: the tenant's database lets it in again, then the catalog says so.

use futures_util::future::BoxFuture;
use insula_core::TenantState;

use crate::error::Error;
use crate::operation::step::{Outcome, Reach, Saga, Step};
use crate::operation::work::Work;
use crate::tenant_suspend::{Mark, lock, target, tell_database};

pub(crate) static SAGA: Saga = Saga {
    kind: "tenant.resume",
    steps: &[
        &Check,
        &Admit,
        &Mark {
            state: TenantState::Active,
            from: &[TenantState::Suspended, TenantState::Deleted, TenantState::Active],
            topic: "tenant.resumed",
            action: "tenant.resume",
        },
    ],
};

/// It can be resumed, and nobody else is at it.
struct Check;

impl Step for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn reach(&self) -> Reach {
        Reach::Catalog
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let tenant = lock(work).await?;
            if tenant.state == TenantState::Provisioning {
                return Err(Error::Conflict(format!("tenant {} is still being made: wait for its operation", tenant.slug)));
            }
            Ok(Outcome::Done)
        })
    }

    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// The tenant's database lets it in.
struct Admit;

impl Step for Admit {
    fn name(&self) -> &'static str {
        "admit"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let tenant = target(work).await?;
            tell_database(work, &tenant, TenantState::Active).await?;
            Ok(Outcome::Done)
        })
    }

    /// As the catalog has it.
    fn undo<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let tenant = target(work).await?;
            tell_database(work, &tenant, tenant.state).await
        })
    }
}
