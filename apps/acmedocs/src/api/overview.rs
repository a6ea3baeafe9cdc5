//! `/api/search`, `/api/dashboard`, `/api/tags`

use std::sync::Arc;

use insula::{Error, Json, Query, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::page_size;
use crate::caller::Caller;
use crate::dashboard::{self, Dashboard};
use crate::features::SEARCH;
use crate::search::{self, DEEPEST, Found, LARGEST_PAGE, LONGEST};
use crate::tags as tag;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchQuery {
    q: String,
    limit: Option<i64>,
    offset: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TagsQuery {
    limit: Option<i64>,
}

#[insula::requires(SEARCH)]
pub(crate) async fn search(caller: Caller, Query(query): Query<SearchQuery>) -> Result<Json<Found>> {
    if query.q.trim().is_empty() || query.q.chars().count() > LONGEST {
        return Err(Error::field("q", format!("has 1 to {LONGEST} characters, not all of them blank")));
    }
    let limit = page_size(query.limit, 20, LARGEST_PAGE)?;
    let offset = query.offset.unwrap_or(0);
    if !(0..=DEEPEST).contains(&offset) {
        return Err(Error::field("offset", format!("is 0 to {DEEPEST}")));
    }
    let mut work = caller.begin().await?;
    let found = search::find(&mut work.tx, &query.q, limit, offset).await?;
    work.tx.commit().await?;
    Ok(Json(found))
}

pub(crate) async fn dashboard(caller: Caller) -> Result<Json<Arc<Dashboard>>> {
    // Who may see it is looked up each time, where nothing is old.
    caller.begin().await?.tx.commit().await?;
    Ok(Json(dashboard::of(caller.tenant()).await?))
}

pub(crate) async fn tags(caller: Caller, Query(query): Query<TagsQuery>) -> Result<Json<Value>> {
    let limit = page_size(query.limit, 100, 1_000)?;
    let mut work = caller.begin().await?;
    let items = tag::counts(&mut work.tx, limit).await?;
    work.tx.commit().await?;
    Ok(Json(json!({"items": items})))
}
