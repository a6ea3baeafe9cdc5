//! Step six: how a tenant begins (roles, settings, its first user), as the application's seed says; bound to the tenant, so
//! that row security holds for the seed too.

use futures_util::future::BoxFuture;
use insula_kit::SeedValues;

use super::{Input, Memo, cell_of};
use crate::cells::kit_in;
use crate::error::Error;
use crate::operation::step::{Outcome, Reach, Step};
use crate::operation::work::Work;
use crate::store::plans::to_json;

pub(super) struct Seed;

impl Step for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let input: Input = work.input()?;
            let memo: Memo = work.memo()?;
            let bundle = work.control.bundle().await?;
            if memo.made || bundle.seed.trim().is_empty() {
                return Ok(Outcome::Done);
            }
            let cell = cell_of(work, memo.home()?).await?;
            let conn = work.cell().ok_or_else(|| Error::Corrupt("no transaction in the cell".into()))?;
            let values = SeedValues {
                email: &input.admin_email,
                hash: &input.admin_hash,
                name: &input.name,
                settings: &to_json(&input.settings)?,
            };
            let seeded = insula_kit::seed(conn, memo.no, &memo.home()?.schema, &bundle.seed, values).await;
            seeded.map_err(kit_in(&cell))?;
            Ok(Outcome::Done)
        })
    }

    /// The rows go with what they are in.
    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}
