//! `/v1/cells`.

use axum::extract::State;
use insula_api::Page;
use insula_api::cell::{Cell, PutApps, RegisterCell, Replica};
use insula_api::page::PageQuery;
use insula_core::{CellName, Kind};

use super::answer::{Answer, created, ok, versioned};
use super::failure::Failure;
use super::input::{Json, Path, Query};
use super::tenants::page_request;
use super::{Refused, wire};
use crate::auth::Caller;
use crate::handle::Control;

/// Cells by name.
#[utoipa::path(
    get, path = "/v1/cells", tag = "cells", params(PageQuery),
    responses((status = 200, body = Page<Cell>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_cells(State(control): State<Control>, Query(query): Query<PageQuery>) -> Answer {
    let found = control.cell_page(&page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, wire::cell))
}

/// Registers a Postgres server as a cell.
#[utoipa::path(
    post, path = "/v1/cells", tag = "cells", request_body = RegisterCell,
    responses((status = 201, body = Cell), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn register_cell(State(control): State<Control>, caller: Caller, Json(body): Json<RegisterCell>) -> Answer {
    let (cell, _) = control.register_cell(&caller.name, wire::register_cell(body)).await?;
    let cell = wire::cell(cell);
    created(&format!("/v1/cells/{}", cell.name), &cell)
}

/// One cell.
#[utoipa::path(
    get, path = "/v1/cells/{cell}", tag = "cells", params(("cell" = String, Path, description = "Its name")),
    responses((status = 200, body = Cell, headers(("ETag" = String, description = "Its version"))), Refused),
    security(("key" = ["read"]))
)]
pub(super) async fn show_cell(State(control): State<Control>, Path(cell): Path<String>) -> Answer {
    let cell = wire::cell(control.cell(&name(&cell)?).await?);
    versioned(&cell, cell.version)
}

/// Lets a cell take no new tenants; those it has are served.
#[utoipa::path(
    post, path = "/v1/cells/{cell}/drain", tag = "cells", params(("cell" = String, Path, description = "Its name")),
    responses((status = 200, body = Cell), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn drain_cell(State(control): State<Control>, caller: Caller, Path(cell): Path<String>) -> Answer {
    ok(&wire::cell(control.drain_cell(&caller.name, &name(&cell)?, true).await?))
}

/// Lets a draining cell take tenants again.
#[utoipa::path(
    post, path = "/v1/cells/{cell}/undrain", tag = "cells", params(("cell" = String, Path, description = "Its name")),
    responses((status = 200, body = Cell), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn undrain_cell(State(control): State<Control>, caller: Caller, Path(cell): Path<String>) -> Answer {
    ok(&wire::cell(control.drain_cell(&caller.name, &name(&cell)?, false).await?))
}

/// Says which application stacks a cell has, and which schema versions each serves: a tenant is sent to one that serves its own.
#[utoipa::path(
    put, path = "/v1/cells/{cell}/apps", tag = "cells", params(("cell" = String, Path, description = "Its name")),
    request_body = PutApps, responses((status = 200, body = Cell), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn put_apps(
    State(control): State<Control>,
    caller: Caller,
    Path(cell): Path<String>,
    Json(body): Json<PutApps>,
) -> Answer {
    ok(&wire::cell(control.put_apps(&caller.name, &name(&cell)?, &body.apps).await?))
}

/// Adds a standby of a cell's server: reads of tenants whose plan has the feature `read_replica` may go there. One that is there
/// already stays.
#[utoipa::path(
    post, path = "/v1/cells/{cell}/replicas", tag = "cells", params(("cell" = String, Path, description = "Its name")),
    request_body = Replica, responses((status = 200, body = Cell), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn add_replica(
    State(control): State<Control>,
    caller: Caller,
    Path(cell): Path<String>,
    Json(body): Json<Replica>,
) -> Answer {
    ok(&wire::cell(control.add_replica(&caller.name, &name(&cell)?, &body).await?))
}

/// Takes a standby of a cell's server away: nothing is read there from now on.
#[utoipa::path(
    delete, path = "/v1/cells/{cell}/replicas/{replica}", tag = "cells",
    params(("cell" = String, Path, description = "Its name"), ("replica" = String, Path, description = "`HOST:PORT`")),
    responses((status = 200, body = Cell), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn remove_replica(
    State(control): State<Control>,
    caller: Caller,
    Path((cell, replica)): Path<(String, String)>,
) -> Answer {
    let replica = replica.parse().map_err(|_| Failure::new(Kind::NotFound, "there is no replica of this address"))?;
    ok(&wire::cell(control.remove_replica(&caller.name, &name(&cell)?, &replica).await?))
}

/// What cannot be a cell's name is the name of none.
fn name(text: &str) -> Result<CellName, Failure> {
    text.parse().map_err(|_| Failure::new(Kind::NotFound, "there is no cell of this name"))
}
