//! `/api/documents/{id}/versions`

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::Response;
use insula::{Error, Json, Result};
use serde_json::{Value, json};

use crate::api::{expected_version, id, whole};
use crate::caller::Caller;
use crate::dashboard;
use crate::versions::{self, Version};

fn number(text: &str) -> Result<i32> {
    text.parse().map_err(|_| Error::not_found())
}

pub(crate) async fn list(caller: Caller, Path(document): Path<String>) -> Result<Json<Value>> {
    let mut work = caller.begin().await?;
    let items = versions::list(&mut work.tx, id(&document)?).await?;
    work.tx.commit().await?;
    Ok(Json(json!({"items": items})))
}

pub(crate) async fn read(caller: Caller, Path((document, version)): Path<(String, String)>) -> Result<Json<Version>> {
    let mut work = caller.begin().await?;
    let version = versions::read(&mut work.tx, id(&document)?, number(&version)?).await?;
    work.tx.commit().await?;
    Ok(Json(version))
}

pub(crate) async fn restore(
    caller: Caller,
    Path((document, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response> {
    let mut work = caller.begin().await?;
    work.user.must_write()?;
    let expected = expected_version(&headers)?;
    let document = versions::restore(&mut work.tx, work.user.id, id(&document)?, number(&version)?, expected).await?;
    dashboard::commit(caller.tenant(), work.tx).await?;
    Ok(whole(document))
}
