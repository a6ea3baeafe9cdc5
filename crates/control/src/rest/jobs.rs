//! `/v1/tenants/{tenant}/jobs`, `/v1/tenants/{tenant}/dead-jobs`.

use axum::extract::State;
use insula_api::Page;
use insula_api::job::{Job, JobBody, JobCount, JobQuery, PurgeDead, ReplayDead};
use uuid::Uuid;

use super::answer::{Answer, ok, with_replay};
use super::input::{Json, Path, Query};
use super::tenants::page_request;
use super::{Refused, wire};
use crate::auth::Caller;
use crate::handle::Control;

/// Jobs of a tenant, newest first: those that wait and run, and ends that are kept. Without what they were asked and answered.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/jobs", tag = "jobs", params(("tenant" = String, Path, description = "Id or slug"), JobQuery),
    responses((status = 200, body = Page<Job>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_jobs(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    Query(query): Query<JobQuery>,
) -> Answer {
    let page = page_request(query.limit, query.cursor.clone())?;
    ok(&wire::page(control.jobs(&caller.name, &tenant, &query, &page).await?, |job| job))
}

/// One job. There is none when its end is not kept.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/jobs/{job}", tag = "jobs",
    params(("tenant" = String, Path, description = "Id or slug"), ("job" = Uuid, Path, description = "Its id")),
    responses((status = 200, body = Job), Refused), security(("key" = ["read"]))
)]
pub(super) async fn show_job(
    State(control): State<Control>,
    caller: Caller,
    Path((tenant, job)): Path<(String, Uuid)>,
) -> Answer {
    ok(&control.job(&caller.name, &tenant, job).await?)
}

/// What a job was asked and what it answered: the tenant's own data, so the audit log says who looked.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/jobs/{job}/body", tag = "jobs",
    params(("tenant" = String, Path, description = "Id or slug"), ("job" = Uuid, Path, description = "Its id")),
    responses((status = 200, body = JobBody), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn show_job_body(
    State(control): State<Control>,
    caller: Caller,
    Path((tenant, job)): Path<(String, Uuid)>,
) -> Answer {
    ok(&control.job_body(&caller.name, &tenant, job).await?)
}

/// Cancels a job: one that waits is over at once, one that runs is told, and is over when it stops.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/jobs/{job}/cancel", tag = "jobs",
    params(("tenant" = String, Path, description = "Id or slug"), ("job" = Uuid, Path, description = "Its id")),
    responses((status = 200, body = Job), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn cancel_job(
    State(control): State<Control>,
    caller: Caller,
    Path((tenant, job)): Path<(String, Uuid)>,
) -> Answer {
    changed(control.cancel_job(&caller.name, &tenant, job).await?)
}

/// Has a job tried now: a dead letter waits again, one that waits for its time goes at once.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/jobs/{job}/retry", tag = "jobs",
    params(("tenant" = String, Path, description = "Id or slug"), ("job" = Uuid, Path, description = "Its id")),
    responses((status = 200, body = Job), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn retry_job(
    State(control): State<Control>,
    caller: Caller,
    Path((tenant, job)): Path<(String, Uuid)>,
) -> Answer {
    changed(control.retry_job(&caller.name, &tenant, job).await?)
}

/// Lets all dead letters of a tenant wait again, but those whose keys living jobs have.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/dead-jobs/replay", tag = "jobs",
    params(("tenant" = String, Path, description = "Id or slug")),
    request_body = ReplayDead, responses((status = 200, body = JobCount), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn replay_dead_jobs(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    Json(ReplayDead {}): Json<ReplayDead>,
) -> Answer {
    ok(&JobCount { jobs: control.replay_dead(&caller.name, &tenant).await? })
}

/// Forgets dead letters of a tenant.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/dead-jobs", tag = "jobs",
    params(("tenant" = String, Path, description = "Id or slug"), PurgeDead),
    responses((status = 200, body = JobCount), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn purge_dead_jobs(
    State(control): State<Control>,
    caller: Caller,
    Path(tenant): Path<String>,
    Query(which): Query<PurgeDead>,
) -> Answer {
    ok(&JobCount { jobs: control.purge_dead(&caller.name, &tenant, which.before).await? })
}

/// The catalog remembers the answer without what is the tenant's own.
fn changed(job: Job) -> Answer {
    let bare = Job { error: None, progress: None, key: None, principal: None, trace: None, ..job.clone() };
    with_replay(ok(&job), &bare)
}
