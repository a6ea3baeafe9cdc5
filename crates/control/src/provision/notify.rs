//! Step eight: the outside is told, by an event that is written with the tenant's registration and delivered after it.

use futures_util::future::BoxFuture;
use serde_json::json;

use super::{Input, Memo};
use crate::error::Error;
use crate::operation::step::{Outcome, Reach, Step};
use crate::operation::work::Work;
use crate::store;

pub(super) struct Notify;

impl Step for Notify {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn reach(&self) -> Reach {
        Reach::Catalog
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let input: Input = work.input()?;
            let memo: Memo = work.memo()?;
            let payload = json!({
                "tenant": input.tenant, "slug": input.slug, "name": input.name, "plan": input.plan,
                "isolation": memo.isolation, "cell": memo.home()?.cell,
            });
            let conn = work.catalog().await?;
            store::outbox::insert(conn, "tenant.provisioned", Some(input.tenant.uuid()), &payload).await?;
            Ok(Outcome::Done)
        })
    }

    /// The event is in the same transaction as everything that could fail after it: there is none to take back.
    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}
