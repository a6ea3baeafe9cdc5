//! `/v1/status`, `/healthz`, `/readyz`.

use axum::extract::State;
use insula_api::status::{Health, Status};
use insula_core::Kind;

use super::answer::{Answer, ok};
use super::failure::Failure;
use super::{Refused, wire};
use crate::error::Error;
use crate::handle::Control;

/// The whole at a glance.
#[utoipa::path(
    get, path = "/v1/status", tag = "whole", responses((status = 200, body = Status), Refused), security(("key" = ["read"]))
)]
pub(super) async fn show_status(State(control): State<Control>) -> Answer {
    let found = control.status().await?;
    ok(&Status {
        ready: found.ready,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: found.revision,
        schema_version: found.schema_version,
        tenants: found.tenants,
        isolation: found.isolation,
        operations: found.operations,
        cells: found.cells.into_iter().map(wire::cell).collect(),
        warm_databases: found.warm,
        workers: found.workers,
        outbox_waiting: found.outbox_waiting,
        audit_broken_at: found.audit_broken_at,
        now: chrono::Utc::now(),
    })
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "whole", responses((status = 200, body = Health)), security(()))]
pub(super) async fn healthz() -> Answer {
    ok(&Health { status: "ok".to_owned() })
}

/// The process can do its work: what is prepared at start is, and the catalog answers.
#[utoipa::path(get, path = "/readyz", tag = "whole", responses((status = 200, body = Health), Refused), security(()))]
pub(super) async fn readyz(State(control): State<Control>) -> Answer {
    if !control.is_ready() {
        return Err(Failure::new(Kind::Unavailable, "starting"));
    }
    sqlx::query("SELECT 1").execute(control.catalog_pool()).await.map_err(Error::from)?;
    ok(&Health { status: "ok".to_owned() })
}
