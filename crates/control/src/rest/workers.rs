//! `/v1/workers`.

use axum::extract::State;
use insula_api::worker::{WorkerQuery, Workers};

use super::Refused;
use super::answer::{Answer, ok};
use super::input::Query;
use crate::handle::Control;

/// Who runs jobs. Takes a second or two: only watching them tells which are alive.
#[utoipa::path(
    get, path = "/v1/workers", tag = "jobs", params(WorkerQuery), responses((status = 200, body = Workers), Refused),
    security(("key" = ["read"]))
)]
pub(super) async fn list_workers(State(control): State<Control>, Query(query): Query<WorkerQuery>) -> Answer {
    ok(&control.workers(query.cell.as_ref()).await?)
}
