//! Step seven: the tenant is at work. Placement, state, fence and audit line appear in one transaction, or none of them.

use std::time::Duration;

use futures_util::future::BoxFuture;
use insula_core::TenantState;
use serde_json::json;

use super::{Input, Memo};
use crate::error::Error;
use crate::operation::step::{Outcome, Reach, Step};
use crate::operation::work::{Deed, Work};
use crate::store;

pub(super) struct Register;

impl Step for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn reach(&self) -> Reach {
        Reach::Catalog
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let input: Input = work.input()?;
            let memo: Memo = work.memo()?;
            let home = memo.home()?.clone();
            let conn = work.catalog().await?;
            sqlx::query("UPDATE catalog.tenant SET state = $2, schema_version = $3, updated_at = now() WHERE id = $1")
                .bind(input.tenant.uuid())
                .bind(TenantState::Active.as_str())
                .bind(memo.schema_version)
                .execute(&mut *conn)
                .await?;
            store::cells::raise_fence(conn, &home.cell, &home.database, memo.fence).await?;
            if memo.isolation != insula_core::Isolation::Row {
                let took = Duration::from_millis(memo.migrate_ms);
                store::bundle::note_applied(conn, &home.cell, &home.database, &home.schema, memo.schema_version, took).await?;
            }
            let detail = json!({"plan": input.plan, "isolation": memo.isolation, "cell": home.cell});
            work.deeds.push(Deed { action: "tenant.create", target: input.slug.to_string(), detail });
            work.job.output = Some(json!({
                "tenant": input.tenant,
                "slug": input.slug,
                "isolation": memo.isolation,
                "placement": {"cell": home.cell, "database": home.database, "schema": home.schema, "epoch": 1},
            }));
            Ok(Outcome::Done)
        })
    }

    fn undo<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let input: Input = work.input()?;
            work.job.output = None;
            let conn = work.catalog().await?;
            sqlx::query("UPDATE catalog.tenant SET state = 'provisioning' WHERE id = $1 AND state = 'active'")
                .bind(input.tenant.uuid())
                .execute(conn)
                .await?;
            Ok(())
        })
    }
}
