//! Step one: what is asked for makes sense, and the name is ours.

use chrono::Utc;
use futures_util::future::BoxFuture;

use super::{Input, Memo, number};
use crate::check;
use crate::error::Error;
use crate::operation::step::{Outcome, Reach, Step};
use crate::operation::work::Work;
use crate::store::plans::{self, to_json};

pub(super) struct Validate;

impl Step for Validate {
    fn name(&self) -> &'static str {
        "validate"
    }

    fn reach(&self) -> Reach {
        Reach::Catalog
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let input: Input = work.input()?;
            let conn = work.catalog().await?;
            let plan = plans::get(conn, input.plan.as_str()).await?.ok_or_else(|| {
                Error::invalid(
                    "plan",
                    format!("there is no plan {:?}: `insula plan list` names those that there are", input.plan.as_str()),
                )
            })?;
            check::limit_overrides(&plan.plan.limits, &input.limits)?;
            let isolation = input.isolation.unwrap_or(plan.plan.isolation);
            // Waits for another request that is taking the same name, and learns how it ended.
            let no: Option<i64> = sqlx::query_scalar(
                "INSERT INTO catalog.tenant (id, slug, name, plan, state, settings, features, limits)
                 VALUES ($1, $2, $3, $4, 'provisioning', $5, $6, $7) ON CONFLICT (slug) DO NOTHING RETURNING no",
            )
            .bind(input.tenant.uuid())
            .bind(input.slug.as_str())
            .bind(&input.name)
            .bind(input.plan.as_str())
            .bind(to_json(&input.settings)?)
            .bind(to_json(&input.features)?)
            .bind(to_json(&input.limits)?)
            .fetch_optional(conn)
            .await?;
            let no = no.ok_or_else(|| Error::Conflict(format!("the slug {} is taken: choose another", input.slug)))?;
            work.remember(&Memo {
                no: number(no)?,
                isolation,
                asked_at: Utc::now(),
                home: None,
                made: false,
                fence: -1,
                schema_version: 0,
                migrate_ms: 0,
            })?;
            Ok(Outcome::Done)
        })
    }

    /// The name is free again; the operation's record stays.
    fn undo<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let input: Input = work.input()?;
            let conn = work.catalog().await?;
            sqlx::query("DELETE FROM catalog.tenant WHERE id = $1 AND state = 'provisioning'")
                .bind(input.tenant.uuid())
                .execute(conn)
                .await?;
            Ok(())
        })
    }
}
