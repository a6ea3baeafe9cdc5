//! Step six: how a tenant begins (roles, settings, its first user), as the application's seed says; bound to the tenant, so
//! that row security holds for the seed too.

use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Input, Memo, cell_of};
use crate::cells::{in_cell, kit_in, own_name};
use crate::error::{Error, sql_transient};
use crate::model::Cell;
use crate::operation::step::{Outcome, Reach, Step};
use crate::operation::work::Work;
use crate::seed_sql::{Statement, statements};
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
            insula_kit::bind(conn, memo.no).await.map_err(kit_in(&cell))?;
            let path = format!("SET LOCAL search_path = {}", own_name(&memo.home()?.schema)?);
            sqlx::raw_sql(AssertSqlSafe(path)).execute(&mut *conn).await.map_err(in_cell(&cell))?;
            for statement in statements(&bundle.seed) {
                run(conn, &cell, statement, &input).await?;
            }
            Ok(Outcome::Done)
        })
    }

    /// The rows go with what they are in.
    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

async fn run(conn: &mut PgConnection, cell: &Cell, statement: Statement, input: &Input) -> Result<(), Error> {
    let mut query = sqlx::query(AssertSqlSafe(statement.sql));
    for parameter in statement.parameters {
        query = match parameter {
            1 => query.bind(&input.admin_email),
            2 => query.bind(&input.admin_hash),
            3 => query.bind(&input.name),
            4 => query.bind(to_json(&input.settings)?),
            other => return Err(Error::Seed(format!("${other}: a seed has $1 (email), $2 (hash), $3 (name) and $4 (settings)"))),
        };
    }
    match query.execute(conn).await {
        Ok(_) => Ok(()),
        Err(error) if sql_transient(&error) => Err(in_cell(cell)(error)),
        Err(error) => Err(Error::Seed(error.as_database_error().map_or_else(|| error.to_string(), |e| e.message().to_owned()))),
    }
}
