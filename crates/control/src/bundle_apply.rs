//! `bundle.apply`: the application's new migrations, everywhere: shared pools and templates, then every tenant with tables of
//! its own, then the pre-made databases (which are made anew).
//!
//! Always: a bundle is tried on a template first and refused when it does not run there or would leak; each schema changes
//! whole or not at all; a tenant made meanwhile from the bundle before is caught up with.

use std::time::Duration;

use futures_util::future::BoxFuture;
use insula_core::placement::{APP_SCHEMA, TEMPLATE_DATABASE};
use insula_core::{CellName, Isolation};
use serde_json::json;
use sqlx::Connection as _;

use crate::cells::in_cell;
use crate::error::Error;
use crate::handle::Control;
use crate::migrations::{self, Held, Standing};
use crate::model::{Bundle, BundlePut, Cell, CellState};
use crate::operation::step::{Outcome, Reach, Saga, Step};
use crate::operation::submit::{Request, submit};
use crate::operation::work::Work;
use crate::store::bundle::Stored;
use crate::store::{self, plans::parse};
use crate::{cell_prepare, warm_pool};

pub(crate) static SAGA: Saga = Saga { kind: "bundle.apply", steps: &[&Shared, &Tenants, &Warm] };

/// How long a bundle waits for the cells of a control plane that has only just started.
const STARTING: Duration = Duration::from_secs(60);

/// Keeps a bundle, and begins to apply it.
pub(crate) async fn put(control: &Control, actor: &str, bundle: Bundle) -> Result<BundlePut, Error> {
    control.wait_ready(STARTING).await?;
    let schema_version = bundle.migrations.last().map_or(0, |m| m.version);
    let mut tx = control.catalog_pool().begin().await?;
    if !store::bundle::write(&mut tx, &bundle).await? {
        return Ok(BundlePut { schema_version, operation: None });
    }
    // In the same transaction, so that two bundles do not pass each other.
    rehearse(control, &store::bundle::read(&mut tx).await?).await?;
    let detail = json!({"schema_version": schema_version, "migrations": bundle.migrations.len()});
    store::audit::append(&mut tx, actor, "bundle.put", None, "", &detail).await?;
    tx.commit().await?;
    control.forget_bundle().await;
    Ok(BundlePut { schema_version, operation: Some(begin(control, actor, schema_version).await?) })
}

/// Begins to bring everything to the bundle that is kept.
pub(crate) async fn begin(control: &Control, actor: &str, version: i64) -> Result<crate::model::Operation, Error> {
    let request = Request { saga: &SAGA, actor, tenant: None, key: None, input: json!({"schema_version": version}) };
    Ok(submit(control, request).await?.operation)
}

/// Runs what is new on one template and takes it back.
async fn rehearse(control: &Control, bundle: &Stored) -> Result<(), Error> {
    let Some(cell) = shared_cells(control).await?.into_iter().next() else { return Ok(()) };
    let making = control.cells().making(&cell.name);
    let _alone = making.lock().await;
    let mut conn = control.cells().connect(&cell, TEMPLATE_DATABASE).await?;
    let mut tx = conn.begin().await.map_err(in_cell(&cell))?;
    if !matches!(migrations::standing(&mut tx, &cell, bundle, APP_SCHEMA).await?, Standing::Foreign(_)) {
        migrations::apply(&mut tx, &cell, bundle, APP_SCHEMA).await?;
        migrations::refuse_leaks(&mut tx, &cell, TEMPLATE_DATABASE).await?;
    }
    tx.rollback().await.map_err(in_cell(&cell))?;
    conn.close().await.map_err(in_cell(&cell))
}

/// Prepared cells that many tenants share.
async fn shared_cells(control: &Control) -> Result<Vec<Cell>, Error> {
    let cells = store::cells::all(&mut *control.catalog_pool().acquire().await?).await?;
    let at_work = |c: &Cell| !c.dedicated && c.kit_way.is_some() && matches!(c.state, CellState::Ready | CellState::Draining);
    Ok(cells.into_iter().filter(at_work).collect())
}

/// What was migrated stays: migrations expand first, so that tables of the next version serve the present application too.
fn nothing_to_undo<'a>() -> BoxFuture<'a, Result<(), Error>> {
    Box::pin(async { Ok(()) })
}

struct Shared;

impl Step for Shared {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let control = work.control.clone();
            control.forget_bundle().await;
            let bundle = control.bundle().await?;
            let mut held = Held::default();
            for cell in shared_cells(&control).await? {
                let making = control.cells().making(&cell.name);
                let _alone = making.lock().await;
                held.keep(&control, cell_prepare::migrate_pool(&control, &cell, &bundle).await).await?;
                held.keep(&control, cell_prepare::migrate_template(&control, &cell, &bundle).await).await?;
                work.event("shared", "progress", format!("cell {}", cell.name));
            }
            held.end()?;
            Ok(Outcome::Done)
        })
    }

    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        nothing_to_undo()
    }
}

struct Tenants;

impl Step for Tenants {
    fn name(&self) -> &'static str {
        "tenants"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let control = work.control.clone();
            let bundle = control.bundle().await?;
            let behind = behind(&control, bundle.version()).await?;
            // One that keeps a transaction open holds up no other.
            let mut held = Held::default();
            for place in &behind {
                held.keep(&control, migrate_tenant(&control, &bundle, place).await).await?;
            }
            note_row_tenants(&control, bundle.version()).await?;
            held.end()?;
            work.event("tenants", "progress", format!("{} with tables of their own", behind.len()));
            Ok(Outcome::Done)
        })
    }

    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        nothing_to_undo()
    }
}

/// A tenant with tables of its own that are behind.
struct Place {
    tenant: uuid::Uuid,
    cell: CellName,
    database: String,
    schema: String,
    isolation: Isolation,
}

async fn behind(control: &Control, version: i64) -> Result<Vec<Place>, Error> {
    let rows: Vec<(uuid::Uuid, String, String, String, String)> = sqlx::query_as(
        "SELECT t.id, p.cell, p.database, p.schema, p.isolation FROM catalog.tenant t JOIN catalog.placement p ON p.tenant = t.id
         WHERE p.isolation <> 'row' AND t.state <> 'provisioning' AND t.schema_version < $1 ORDER BY t.no",
    )
    .bind(version)
    .fetch_all(control.catalog_pool())
    .await?;
    rows.into_iter()
        .map(|(tenant, cell, database, schema, isolation)| {
            Ok(Place {
                tenant,
                cell: parse("cell name", cell.parse())?,
                database,
                schema,
                isolation: parse("isolation", Isolation::from_name(&isolation).ok_or(isolation))?,
            })
        })
        .collect()
}

async fn migrate_tenant(control: &Control, bundle: &Stored, place: &Place) -> Result<(), Error> {
    let cell = control.cell(&place.cell).await?;
    let started = std::time::Instant::now();
    let mut tx = match place.isolation {
        Isolation::Database | Isolation::Cell => control.cells().begin_alone(&cell, &place.database).await?,
        _ => control.cells().begin(&cell, &place.database).await?,
    };
    migrations::apply_now(tx.conn(), &cell, bundle, &place.schema).await?;
    migrations::refuse_uncovered(tx.conn(), &cell, &place.schema).await?;
    tx.commit().await?;
    let mut tx = control.catalog_pool().begin().await?;
    let version = bundle.version();
    store::bundle::note_applied(&mut tx, &place.cell, &place.database, &place.schema, version, started.elapsed()).await?;
    sqlx::query("UPDATE catalog.tenant SET schema_version = $2 WHERE id = $1")
        .bind(place.tenant)
        .bind(version)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Row tenants have what their pool has.
async fn note_row_tenants(control: &Control, version: i64) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.tenant t SET schema_version = $1 FROM catalog.placement p
         WHERE p.tenant = t.id AND p.isolation = 'row' AND t.state <> 'provisioning' AND t.schema_version < $1",
    )
    .bind(version)
    .execute(control.catalog_pool())
    .await?;
    Ok(())
}

struct Warm;

impl Step for Warm {
    fn name(&self) -> &'static str {
        "warm"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            warm_pool::reconcile(&work.control).await?;
            Ok(Outcome::Done)
        })
    }

    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        nothing_to_undo()
    }
}

/// Begins to catch up when tenants are behind and nobody is at it: those that were made meanwhile, and all when the last time ended because something was away, or
/// somebody's transaction stayed open. Row tenants count with their pool.
pub(crate) async fn reconcile(control: &Control) -> Result<(), Error> {
    let version = control.bundle().await?.version();
    let at_work: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM catalog.operation WHERE kind = 'bundle.apply' AND state IN ('pending', 'running', 'undoing'))",
    )
    .fetch_one(control.catalog_pool())
    .await?;
    let lagging: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM catalog.tenant t JOIN catalog.operation o ON o.tenant = t.id AND o.kind = 'tenant.provision'
                        WHERE t.state <> 'provisioning' AND t.schema_version < $1
                          AND o.finished_at > (SELECT max(created_at) FROM catalog.operation WHERE kind = 'bundle.apply'))
             OR EXISTS (SELECT FROM (SELECT state, error FROM catalog.operation WHERE kind = 'bundle.apply' ORDER BY created_at DESC, id DESC LIMIT 1) o
                         WHERE o.state = 'failed' AND o.error ->> 'kind' = 'unavailable')",
    )
    .bind(version)
    .fetch_one(control.catalog_pool())
    .await?;
    if lagging && !at_work {
        begin(control, "reconciler", version).await?;
    }
    Ok(())
}
