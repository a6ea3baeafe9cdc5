//! Step three, for isolation `cell` alone: the tenant's own server is up and has its roles.

use std::time::Duration;

use chrono::Utc;
use futures_util::future::BoxFuture;
use insula_core::Isolation;

use super::{Input, Memo, cell_of, remove};
use crate::cell_prepare;
use crate::error::Error;
use crate::model::{CellState, Provider};
use crate::operation::step::{Outcome, Reach, Step};
use crate::operation::work::Work;
use crate::store;

/// Between two looks at whether the supervisor has started the server.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct AwaitCell;

impl Step for AwaitCell {
    fn name(&self) -> &'static str {
        "cell"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let memo: Memo = work.memo()?;
            if memo.isolation != Isolation::Cell {
                return Ok(Outcome::Done);
            }
            let cell = cell_of(work, memo.home()?).await?;
            let up = cell.host.is_some() && (cell.provider == Provider::Registered || cell.state == CellState::Ready);
            if !up {
                let waited = (Utc::now() - memo.asked_at).to_std().unwrap_or_default();
                if waited > work.control.config().cell_patience {
                    let text = format!(
                        "cell {} did not come up: is `insula up` running? Its log says what its Postgres says",
                        cell.name
                    );
                    return Err(Error::Timeout(text));
                }
                return Ok(Outcome::Wait(LOOK, "waiting for the cell's database server"));
            }
            let way = cell_prepare::prepare_server(&work.control, &cell).await?;
            let mut conn = work.control.catalog_pool().acquire().await?;
            store::cells::set_prepared(&mut conn, &cell.name, way.number()).await?;
            Ok(Outcome::Done)
        })
    }

    /// All that the tenant has in its cell, be it made or only claimed, is taken back; the server itself is given back with
    /// the place.
    fn undo<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let input: Input = work.input()?;
            let memo: Memo = work.memo()?;
            if memo.home.is_none() {
                return Ok(());
            }
            let cell = cell_of(work, memo.home()?).await?;
            remove::remove(&work.control, &cell, &memo, input.tenant).await
        })
    }
}
