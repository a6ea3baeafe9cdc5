//! `/v1/plans`.

use axum::extract::State;
use insula_api::Page;
use insula_api::page::PageQuery;
use insula_api::plan::{CreatePlan, FeatureChange, Plan, UpdatePlan};

use super::answer::{Answer, created, ok, versioned};
use super::input::{IfMatch, Json, Path, Query};
use super::tenants::page_request;
use super::{Refused, wire};
use crate::auth::Caller;
use crate::handle::Control;
use crate::model::PutPlan;

/// Plans by name.
#[utoipa::path(
    get, path = "/v1/plans", tag = "plans", params(PageQuery),
    responses((status = 200, body = Page<Plan>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_plans(State(control): State<Control>, Query(query): Query<PageQuery>) -> Answer {
    let found = control.plans(&page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, wire::plan))
}

/// Makes a plan.
#[utoipa::path(
    post, path = "/v1/plans", tag = "plans", request_body = CreatePlan,
    responses((status = 201, body = Plan), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn create_plan(State(control): State<Control>, caller: Caller, Json(body): Json<CreatePlan>) -> Answer {
    let plan = wire::plan(control.create_plan(&caller.name, wire::put_plan(body)).await?);
    created(&format!("/v1/plans/{}", plan.name), &plan)
}

/// One plan.
#[utoipa::path(
    get, path = "/v1/plans/{plan}", tag = "plans", params(("plan" = String, Path, description = "Its name")),
    responses((status = 200, body = Plan, headers(("ETag" = String, description = "Its version"))), Refused),
    security(("key" = ["read"]))
)]
pub(super) async fn show_plan(State(control): State<Control>, Path(plan): Path<String>) -> Answer {
    let plan = wire::plan(control.plan(&plan).await?);
    versioned(&plan, plan.version)
}

/// Changes a plan; its tenants feel it at once, and nobody moves.
#[utoipa::path(
    patch, path = "/v1/plans/{plan}", tag = "plans",
    params(
        ("plan" = String, Path, description = "Its name"),
        ("If-Match" = String, Header, description = "The ETag that the change is made from; * for any"),
    ),
    request_body = UpdatePlan,
    responses((status = 200, body = Plan, headers(("ETag" = String, description = "Its new version"))), Refused),
    security(("key" = ["admin"]))
)]
pub(super) async fn update_plan(
    State(control): State<Control>,
    caller: Caller,
    Path(plan): Path<String>,
    IfMatch(expected): IfMatch,
    Json(change): Json<UpdatePlan>,
) -> Answer {
    let now = control.plan(&plan).await?;
    let expected = expected.or(Some(now.version));
    let insula_core::Plan { name, tier, isolation, limits, mut features, .. } = now.plan;
    for (feature, change) in change.features {
        match change {
            FeatureChange::Set(value) => features.insert(feature, value),
            FeatureChange::Reset => features.remove(&feature),
        };
    }
    let new = PutPlan {
        name,
        tier: change.tier.unwrap_or(tier),
        isolation: change.isolation.unwrap_or(isolation),
        limits: change.limits.unwrap_or(limits),
        features,
    };
    let plan = wire::plan(control.update_plan(&caller.name, new, expected).await?);
    versioned(&plan, plan.version)
}
