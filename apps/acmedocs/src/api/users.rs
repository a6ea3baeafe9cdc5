//! `/api/users`

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use insula::{Json, Result};
use serde::Deserialize;
use serde_json::json;

use crate::App;
use crate::api::id;
use crate::caller::Caller;
use crate::sessions::Role;
use crate::users::{self, Entry, New};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    role: Role,
}

/// Everybody, and how many there may be.
pub(crate) async fn list(caller: Caller) -> Result<Json<serde_json::Value>> {
    let mut work = caller.begin().await?;
    work.user.must_administer()?;
    let items = users::list(&mut work.tx).await?;
    work.tx.commit().await?;
    Ok(Json(json!({"items": items, "limit": caller.tenant().plan().limits.max_users})))
}

/// One more. The answer has the password when we made it up.
pub(crate) async fn add(State(app): State<App>, caller: Caller, Json(new): Json<New>) -> Result<Response> {
    let added = users::add(caller.tenant(), caller.token(), &app.passwords, new).await?;
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(added)).into_response())
}

pub(crate) async fn change(caller: Caller, Path(user): Path<String>, Json(change): Json<Change>) -> Result<Json<Entry>> {
    Ok(Json(users::change(caller.tenant(), caller.token(), id(&user)?, change.role).await?))
}

pub(crate) async fn remove(caller: Caller, Path(user): Path<String>) -> Result<StatusCode> {
    users::remove(caller.tenant(), caller.token(), id(&user)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
