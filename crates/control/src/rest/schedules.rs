//! `/v1/tenants/{tenant}/schedules`, `/v1/host-schedules`.

use axum::extract::State;
use insula_api::Page;
use insula_api::page::PageQuery;
use insula_api::schedule::{HostSchedule, Schedule};

use super::answer::{Answer, ok};
use super::input::{Path, Query};
use super::tenants::page_request;
use super::{Refused, wire};
use crate::auth::Caller;
use crate::handle::Control;

/// Schedules of a tenant, by name: its own, and those that the application's code declares for every tenant.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/schedules", tag = "jobs", params(("tenant" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = Page<Schedule>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_schedules(
    State(control): State<Control>,
    Path(tenant): Path<String>,
    Query(query): Query<PageQuery>,
) -> Answer {
    let found = control.schedules(&tenant, &page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, |schedule| schedule))
}

/// Stops a schedule until it is resumed. What it started goes on.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/schedules/{schedule}/pause", tag = "jobs",
    params(("tenant" = String, Path, description = "Id or slug"), ("schedule" = String, Path, description = "Its name")),
    responses((status = 200, body = Schedule), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn pause_schedule(
    State(control): State<Control>,
    caller: Caller,
    Path((tenant, schedule)): Path<(String, String)>,
) -> Answer {
    ok(&control.pause_schedule(&caller.name, &tenant, &schedule, true).await?)
}

/// Lets a schedule come again, from now on: what would have come meanwhile is not made up for.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/schedules/{schedule}/resume", tag = "jobs",
    params(("tenant" = String, Path, description = "Id or slug"), ("schedule" = String, Path, description = "Its name")),
    responses((status = 200, body = Schedule), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn resume_schedule(
    State(control): State<Control>,
    caller: Caller,
    Path((tenant, schedule)): Path<(String, String)>,
) -> Answer {
    ok(&control.pause_schedule(&caller.name, &tenant, &schedule, false).await?)
}

/// Schedules of the host, by name.
#[utoipa::path(
    get, path = "/v1/host-schedules", tag = "jobs", params(PageQuery),
    responses((status = 200, body = Page<HostSchedule>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_host_schedules(State(control): State<Control>, Query(query): Query<PageQuery>) -> Answer {
    let found = control.host_schedules(&page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, |schedule| schedule))
}

/// Stops a schedule of the host until it is resumed. A firing that has begun goes on, and is tried again.
#[utoipa::path(
    post, path = "/v1/host-schedules/{schedule}/pause", tag = "jobs", params(("schedule" = String, Path, description = "Its name")),
    responses((status = 200, body = HostSchedule), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn pause_host_schedule(State(control): State<Control>, caller: Caller, Path(schedule): Path<String>) -> Answer {
    ok(&control.pause_host_schedule(&caller.name, &schedule, true).await?)
}

/// Lets a schedule of the host come again, from now on: what would have come meanwhile is not made up for.
#[utoipa::path(
    post, path = "/v1/host-schedules/{schedule}/resume", tag = "jobs", params(("schedule" = String, Path, description = "Its name")),
    responses((status = 200, body = HostSchedule), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn resume_host_schedule(State(control): State<Control>, caller: Caller, Path(schedule): Path<String>) -> Answer {
    ok(&control.pause_host_schedule(&caller.name, &schedule, false).await?)
}
