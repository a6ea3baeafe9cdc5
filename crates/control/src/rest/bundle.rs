//! `/v1/bundle` and `/v1/migrations`.

use axum::extract::State;
use axum::http::StatusCode;
use insula_api::Page;
use insula_api::bundle::{Bundle, BundlePut, MigrationStatus};
use insula_api::tenant::WaitQuery;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::answer::{Answer, at, ok};
use super::input::{Json, MAX_BUNDLE, Query};
use super::tenants::{begun_or_done, location};
use super::{Refused, wire};
use crate::auth::Caller;
use crate::error::Error;
use crate::handle::Control;
use crate::model::OperationState;

/// Hands in the application's migrations and seed; what is new is applied everywhere. At most 16 MiB.
#[utoipa::path(
    put, path = "/v1/bundle", tag = "bundle", params(WaitQuery), request_body = Bundle,
    responses((status = 200, description = "In force", body = BundlePut), (status = 202, description = "Being applied", body = BundlePut), Refused),
    security(("key" = ["admin"]))
)]
pub(super) async fn put_bundle(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<WaitQuery>,
    Json(body): Json<Bundle, MAX_BUNDLE>,
) -> Answer {
    let put = control.put_bundle(&caller.name, wire::bundle_in(body)).await?;
    let schema_version = put.schema_version;
    let Some(operation) = put.operation else { return ok(&BundlePut { schema_version, operation: None }) };
    let operation = begun_or_done(&control, operation, query.wait).await?;
    let status = if operation.state == OperationState::Done { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = location(operation.id);
    at(status, &location, &BundlePut { schema_version, operation: Some(wire::operation(operation)) })
}

/// The application's migrations, by version, and in how many databases and schemas each is.
#[utoipa::path(
    get, path = "/v1/migrations", tag = "bundle",
    responses((status = 200, body = Page<MigrationStatus>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_migrations(State(control): State<Control>) -> Answer {
    // Index: the primary key of migration_run has the version last; an application has few migrations.
    let rows = sqlx::query(
        "SELECT m.version, m.name, m.checksum, count(r.version) AS applied, m.created_at
         FROM catalog.migration m LEFT JOIN catalog.migration_run r ON r.version = m.version
         GROUP BY m.version ORDER BY m.version",
    )
    .fetch_all(control.catalog_pool())
    .await
    .map_err(Error::from)?;
    let read = |row: &PgRow| {
        Ok(MigrationStatus {
            version: row.try_get("version")?,
            name: row.try_get("name")?,
            checksum: wire::hex(row.try_get("checksum")?),
            applied: row.try_get("applied")?,
            created_at: row.try_get("created_at")?,
        })
    };
    let items = rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(Error::from)?;
    ok(&Page::<MigrationStatus> { items, next: None })
}
