//! Step two: a cell, a database, a schema; named in the catalog before any of it is made.

use futures_util::future::BoxFuture;
use insula_core::placement::{APP_SCHEMA, POOL_DATABASE, SCHEMAS_DATABASE};
use insula_core::{CellName, Isolation, TenantId};
use insula_planner::placement::{Candidate, Demand, Refusal, choose};
use sqlx::PgConnection;

use super::{Home, Input, Memo};
use crate::cell_provider;
use crate::error::Error;
use crate::model::{Cell, CellState};
use crate::operation::step::{Outcome, Reach, Step};
use crate::operation::work::Work;
use crate::store;

/// Below this much room, requests take turns to count, so that a cell is filled to the last place and no further.
const NEARLY_FULL: u64 = 256;

/// Any constant: the turn that they take.
const TURN: i64 = 0x706c_6163_6500;

pub(super) struct Place;

impl Step for Place {
    fn name(&self) -> &'static str {
        "place"
    }

    fn reach(&self) -> Reach {
        Reach::Catalog
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let input: Input = work.input()?;
            let mut memo: Memo = work.memo()?;
            let embedded = work.control.config().embedded_cells;
            let conn = work.catalog().await?;
            let cell = match memo.isolation {
                Isolation::Cell => cell_provider::take(conn, &input, embedded).await?,
                _ => shared_cell(conn, &input).await?,
            };
            let opaque = work.control.cells().key(&cell).opaque_name(input.tenant);
            let conn = work.catalog().await?;
            let home = home(conn, memo.isolation, cell, &opaque).await?;
            place(conn, input.tenant, memo.isolation, &home).await?;
            memo.home = Some(home);
            work.remember(&memo)?;
            Ok(Outcome::Done)
        })
    }

    fn undo<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let input: Input = work.input()?;
            let memo: Memo = work.memo()?;
            let Some(home) = &memo.home else { return Ok(()) };
            let conn = work.catalog().await?;
            sqlx::query("DELETE FROM catalog.placement WHERE tenant = $1").bind(input.tenant.uuid()).execute(&mut *conn).await?;
            if memo.alone() {
                sqlx::query("DELETE FROM catalog.cell_database WHERE cell = $1 AND name = $2 AND purpose = 'tenant'")
                    .bind(home.cell.as_str())
                    .bind(&home.database)
                    .execute(&mut *conn)
                    .await?;
            }
            if memo.isolation == Isolation::Cell {
                cell_provider::give_back(conn, &home.cell).await?;
            }
            Ok(())
        })
    }
}

/// The best of the cells that many tenants share.
async fn shared_cell(conn: &mut PgConnection, input: &Input) -> Result<CellName, Error> {
    let demand = Demand { cell: input.cell.clone(), region: input.region.clone(), labels: input.labels.clone() };
    let cells = candidates(conn).await?;
    let best = choose(&cells, &demand).map_err(refused)?;
    if best.capacity - best.tenants > NEARLY_FULL {
        return Ok(best.name.clone());
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(TURN).execute(&mut *conn).await?;
    let cells = candidates(conn).await?;
    Ok(choose(&cells, &demand).map_err(refused)?.name.clone())
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Unknown(_) => Error::invalid("cell", refusal.to_string()),
        Refusal::NoMatch(_) => Error::invalid("labels", refusal.to_string()),
        Refusal::Closed(_) | Refusal::Full(_) => Error::Full(refusal.to_string()),
    }
}

async fn candidates(conn: &mut PgConnection) -> Result<Vec<Candidate>, Error> {
    let shared = |c: &Cell| !c.dedicated && !matches!(c.state, CellState::Free | CellState::Removing);
    let candidate = |c: Cell| Candidate {
        open: c.state == CellState::Ready && c.kit_way.is_some(),
        name: c.name,
        region: c.region,
        labels: c.labels,
        capacity: u64::try_from(c.capacity).unwrap_or(0),
        tenants: u64::try_from(c.tenants).unwrap_or(0),
    };
    Ok(store::cells::all(conn).await?.into_iter().filter(shared).map(candidate).collect())
}

/// Names of the tenant's database and schema; takes a pre-made database when there is one of the present bundle.
async fn home(conn: &mut PgConnection, isolation: Isolation, cell: CellName, opaque: &str) -> Result<Home, Error> {
    let (database, schema) = match isolation {
        Isolation::Row => (POOL_DATABASE.to_owned(), APP_SCHEMA.to_owned()),
        Isolation::Schema => (SCHEMAS_DATABASE.to_owned(), format!("s{opaque}")),
        Isolation::Database | Isolation::Cell => (format!("d{opaque}"), APP_SCHEMA.to_owned()),
    };
    let mut home = Home { cell, database, schema, warm: None };
    if isolation == Isolation::Database {
        home.warm = store::warm::claim(conn, &home.cell, &home.database).await?;
    }
    if home.warm.is_none() && matches!(isolation, Isolation::Database | Isolation::Cell) {
        sqlx::query("INSERT INTO catalog.cell_database (cell, name, purpose) VALUES ($1, $2, 'tenant') ON CONFLICT DO NOTHING")
            .bind(home.cell.as_str())
            .bind(&home.database)
            .execute(conn)
            .await?;
    }
    Ok(home)
}

async fn place(conn: &mut PgConnection, tenant: TenantId, isolation: Isolation, home: &Home) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO catalog.placement (tenant, cell, database, schema, isolation, epoch) VALUES ($1, $2, $3, $4, $5, 1)
         ON CONFLICT (tenant) DO NOTHING",
    )
    .bind(tenant.uuid())
    .bind(home.cell.as_str())
    .bind(&home.database)
    .bind(&home.schema)
    .bind(isolation.as_str())
    .execute(conn)
    .await?;
    Ok(())
}
