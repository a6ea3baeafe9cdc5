//! Makes a cell's server ready for tenants: roles, shared databases, SQL kit, the application's tables.
//!
//! Two ways in: [`prepare`], at start and inside other work, and the operation `cell.prepare` for a newly registered cell.
//! Always: idempotent, and quick when there is nothing to do.

use futures_util::future::BoxFuture;
use insula_core::CellName;
use insula_core::placement::{APP_SCHEMA, POOL_DATABASE, SCHEMAS_DATABASE, TEMPLATE_DATABASE};
use serde::Deserialize;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::cells::{MAINTENANCE, in_cell, kit_in, own_name};
use crate::error::Error;
use crate::handle::Control;
use crate::migrations::{self, Standing};
use crate::model::{Cell, CellState};
use crate::operation::step::{Outcome, Reach, Saga, Step};
use crate::operation::work::{Deed, Work};
use crate::store;
use crate::store::bundle::Stored;

/// The grant key of a database that was never rotated.
pub(crate) const FIRST_KID: i32 = 1;

pub(crate) static SAGA: Saga = Saga { kind: "cell.prepare", steps: &[&Prepare] };

/// Prepares a cell for tenants of every shared kind, and notes in the catalog that it is.
pub(crate) async fn prepare(control: &Control, cell: &Cell) -> Result<(), Error> {
    let bundle = store::bundle::read(&mut *control.catalog_pool().acquire().await?).await?;
    let making = control.cells().making(&cell.name);
    let _alone = making.lock().await;
    let way = prepare_server(control, cell).await?;
    for (database, purpose) in [(POOL_DATABASE, Some("pool")), (SCHEMAS_DATABASE, Some("schemas")), (TEMPLATE_DATABASE, None)] {
        let fence = prepare_database(control, cell, database).await?;
        if database == POOL_DATABASE {
            // From the moment that the catalog has it, schedules of the host may lie there.
            control.tell_pool(cell).await?;
        }
        if let Some(purpose) = purpose {
            store::cells::put_database(&mut *control.catalog_pool().acquire().await?, &cell.name, database, purpose, fence)
                .await?;
        }
    }
    migrate_pool(control, cell, &bundle).await?;
    migrate_template(control, cell, &bundle).await?;
    let mut conn = control.catalog_pool().acquire().await?;
    store::cells::set_prepared(&mut conn, &cell.name, way.number()).await
}

/// The server's roles.
pub(crate) async fn prepare_server(control: &Control, cell: &Cell) -> Result<insula_kit::Way, Error> {
    let mut admin = control.cells().connect(cell, MAINTENANCE).await?;
    let server = insula_kit::prepare_server(&mut admin, &control.cells().key(&cell.name)).await.map_err(kit_in(cell))?;
    admin.close().await.map_err(in_cell(cell))?;
    Ok(server.way)
}

/// A database with the kit in it; says its fence.
pub(crate) async fn prepare_database(control: &Control, cell: &Cell, database: &str) -> Result<i64, Error> {
    let mut admin = control.cells().connect(cell, MAINTENANCE).await?;
    insula_kit::create_database(&mut admin, database).await.map_err(kit_in(cell))?;
    admin.close().await.map_err(in_cell(cell))?;
    let mut conn = control.cells().connect(cell, database).await?;
    let key = control.cells().key(&cell.name);
    let installed = insula_kit::install(&mut conn, database, &key, FIRST_KID).await.map_err(kit_in(cell))?;
    migrations::prepare(&mut conn, cell).await?;
    conn.close().await.map_err(in_cell(cell))?;
    Ok(installed.fence)
}

/// The tables that row tenants share.
pub(crate) async fn migrate_pool(control: &Control, cell: &Cell, bundle: &Stored) -> Result<(), Error> {
    let mut conn = control.cells().connect(cell, POOL_DATABASE).await?;
    let started = std::time::Instant::now();
    let mut tx = conn.begin().await.map_err(in_cell(cell))?;
    let done = migrations::apply_now(&mut tx, cell, bundle, APP_SCHEMA).await?;
    if done > 0 {
        migrations::refuse_leaks(&mut tx, cell, POOL_DATABASE).await?;
    }
    tx.commit().await.map_err(in_cell(cell))?;
    conn.close().await.map_err(in_cell(cell))?;
    let mut conn = control.catalog_pool().acquire().await?;
    store::bundle::note_applied(&mut conn, &cell.name, POOL_DATABASE, APP_SCHEMA, bundle.version(), started.elapsed()).await
}

/// The template of tenant databases. It holds nothing that cannot be made again, so one of another bundle is.
pub(crate) async fn migrate_template(control: &Control, cell: &Cell, bundle: &Stored) -> Result<(), Error> {
    let mut conn = control.cells().connect(cell, TEMPLATE_DATABASE).await?;
    if let Standing::Foreign(version) = migrations::standing(&mut conn, cell, bundle, APP_SCHEMA).await? {
        tracing::warn!(cell = %cell.name, version, "the template has a migration of another bundle: making it anew");
        conn.close().await.map_err(in_cell(cell))?;
        let mut admin = control.cells().connect(cell, MAINTENANCE).await?;
        drop_database(&mut admin, cell, TEMPLATE_DATABASE).await?;
        prepare_database(control, cell, TEMPLATE_DATABASE).await?;
        conn = control.cells().connect(cell, TEMPLATE_DATABASE).await?;
    }
    let mut tx = conn.begin().await.map_err(in_cell(cell))?;
    let done = migrations::apply_now(&mut tx, cell, bundle, APP_SCHEMA).await?;
    if done > 0 {
        migrations::refuse_leaks(&mut tx, cell, TEMPLATE_DATABASE).await?;
    }
    tx.commit().await.map_err(in_cell(cell))?;
    conn.close().await.map_err(in_cell(cell))
}

/// Drops a database and whoever is connected to it; nothing to do when it is not there.
pub(crate) async fn drop_database(admin: &mut PgConnection, cell: &Cell, database: &str) -> Result<(), Error> {
    let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", own_name(database)?);
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.map_err(in_cell(cell))?;
    Ok(())
}

#[derive(Deserialize)]
struct Input {
    cell: CellName,
}

struct Prepare;

impl Step for Prepare {
    fn name(&self) -> &'static str {
        "prepare"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let Input { cell } = work.input()?;
            let cell = work.control.cell(&cell).await?;
            prepare(&work.control, &cell).await?;
            work.deeds.push(Deed { action: "cell.ready", target: cell.name.to_string(), detail: json!({}) });
            Ok(Outcome::Done)
        })
    }

    /// Nothing to take back: what is half prepared takes no tenants, and can be prepared again. The cell is marked as down.
    fn undo<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let Input { cell } = work.input()?;
            let mut conn = work.control.catalog_pool().acquire().await?;
            store::cells::set_state(&mut conn, &cell, &[CellState::Requested], CellState::Down).await?;
            Ok(())
        })
    }
}
