//! `/api/exports`

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderValue, LOCATION, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use insula::{Json, Result};
use serde_json::{Value, json};

use crate::api::id;
use crate::caller::Caller;
use crate::exports::{self, Export, New};

pub(crate) async fn list(caller: Caller) -> Result<Json<Value>> {
    let mut work = caller.begin().await?;
    let items = exports::list(&mut work.tx, caller.tenant()).await?;
    work.tx.commit().await?;
    Ok(Json(json!({"items": items})))
}

/// Asked for; made by a worker.
pub(crate) async fn request(caller: Caller, Json(new): Json<New>) -> Result<Response> {
    let mut work = caller.begin().await?;
    work.user.must_write()?;
    let export = exports::request(&mut work.tx, caller.tenant(), work.user.id, new).await?;
    work.tx.commit().await?;
    let place = [(LOCATION, format!("/api/exports/{}", export.id))];
    Ok((StatusCode::ACCEPTED, place, shown(export)).into_response())
}

pub(crate) async fn read(caller: Caller, Path(export): Path<String>) -> Result<Response> {
    let mut work = caller.begin().await?;
    let export = exports::read(&mut work.tx, caller.tenant(), id(&export)?).await?;
    work.tx.commit().await?;
    Ok(shown(export))
}

pub(crate) async fn remove(caller: Caller, Path(export): Path<String>) -> Result<StatusCode> {
    let mut work = caller.begin().await?;
    work.user.must_write()?;
    exports::remove(&mut work.tx, id(&export)?).await?;
    work.tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says when to look again, while there is something to wait for. No cache keeps a link.
fn shown(export: Export) -> Response {
    let open = export.state.is_open();
    let mut response = Json(export).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if open {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
