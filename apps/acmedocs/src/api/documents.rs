//! `/api/documents`

use axum::extract::Path;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use insula::{Json, Query, Result};
use serde::Deserialize;
use uuid::Uuid;

use crate::api::{expected_version, id, page_size, whole};
use crate::caller::Caller;
use crate::dashboard;
use crate::documents::{self, Change, LARGEST_PAGE, New, Page};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    limit: Option<i64>,
    after: Option<Uuid>,
    tag: Option<String>,
}

pub(crate) async fn list(caller: Caller, Query(query): Query<ListQuery>) -> Result<Json<Page>> {
    let limit = page_size(query.limit, 50, LARGEST_PAGE)?;
    let tag = query.tag.map(|tag| tag.trim().to_lowercase());
    let mut work = caller.begin().await?;
    let page = documents::list(&mut work.tx, limit, query.after, tag.as_deref()).await?;
    work.tx.commit().await?;
    Ok(Json(page))
}

pub(crate) async fn create(caller: Caller, Json(new): Json<New>) -> Result<Response> {
    let mut work = caller.begin().await?;
    work.user.must_write()?;
    let document = documents::create(&mut work.tx, work.user.id, new).await?;
    dashboard::commit(caller.tenant(), work.tx).await?;
    let place = [(LOCATION, format!("/api/documents/{}", document.id)), (ETAG, format!("\"{}\"", document.version))];
    Ok((StatusCode::CREATED, place, Json(document)).into_response())
}

pub(crate) async fn read(caller: Caller, Path(document): Path<String>) -> Result<Response> {
    let mut work = caller.begin().await?;
    let document = documents::read(&mut work.tx, id(&document)?).await?;
    work.tx.commit().await?;
    Ok(whole(document))
}

pub(crate) async fn update(
    caller: Caller,
    Path(document): Path<String>,
    headers: HeaderMap,
    Json(change): Json<Change>,
) -> Result<Response> {
    let mut work = caller.begin().await?;
    work.user.must_write()?;
    let expected = expected_version(&headers)?;
    let document = documents::update(&mut work.tx, work.user.id, id(&document)?, change, expected).await?;
    dashboard::commit(caller.tenant(), work.tx).await?;
    Ok(whole(document))
}

pub(crate) async fn delete(caller: Caller, Path(document): Path<String>, headers: HeaderMap) -> Result<StatusCode> {
    let mut work = caller.begin().await?;
    work.user.must_write()?;
    documents::delete(&mut work.tx, work.user.id, id(&document)?, expected_version(&headers)?).await?;
    dashboard::commit(caller.tenant(), work.tx).await?;
    Ok(StatusCode::NO_CONTENT)
}
