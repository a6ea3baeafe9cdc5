//! Step five: the application's tables, with the bundle's checksums, in the transaction that the tenant is made in.

use futures_util::future::BoxFuture;
use insula_core::Isolation;
use insula_core::placement::APP_SCHEMA;

use super::{Memo, cell_of};
use crate::error::Error;
use crate::migrations::{self, Standing};
use crate::operation::step::{Outcome, Reach, Step};
use crate::operation::work::Work;

pub(super) struct Migrate;

impl Step for Migrate {
    fn name(&self) -> &'static str {
        "migrate"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let mut memo: Memo = work.memo()?;
            let bundle = work.control.bundle().await?;
            if !memo.made {
                let cell = cell_of(work, memo.home()?).await?;
                let started = std::time::Instant::now();
                let (schema, database) = (memo.home()?.schema.clone(), memo.home()?.database.clone());
                let conn = work.cell().ok_or_else(|| Error::Corrupt("no transaction in the cell".into()))?;
                match memo.isolation {
                    Isolation::Row => {
                        // The pool is everybody's: who migrates it is the bundle's own operation.
                        if !matches!(migrations::standing(conn, &cell, &bundle, APP_SCHEMA).await?, Standing::Current) {
                            let text = format!("cell {} is being brought to the application's present version", cell.name);
                            return Err(Error::Away(text));
                        }
                    }
                    Isolation::Schema => {
                        migrations::apply(conn, &cell, &bundle, &schema).await?;
                        migrations::refuse_uncovered(conn, &cell, &schema).await?;
                    }
                    Isolation::Database | Isolation::Cell => {
                        if migrations::apply(conn, &cell, &bundle, APP_SCHEMA).await? > 0 {
                            migrations::refuse_leaks(conn, &cell, &database).await?;
                        }
                    }
                }
                memo.migrate_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            }
            memo.schema_version = bundle.version();
            work.remember(&memo)?;
            Ok(Outcome::Done)
        })
    }

    /// The tables go with what they are in.
    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}
