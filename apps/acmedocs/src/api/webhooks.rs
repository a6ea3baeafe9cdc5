//! `/api/webhooks`: the workspace's own addresses that are told what happens in it. For admins.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::response::{IntoResponse, Response};
use insula::{Error, Json, Result, webhooks};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::id;
use crate::caller::{Caller, Work};
use crate::events::TOPICS;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    url: String,
    /// Topics, `document.*`, or `*`; everything when they are left out.
    #[serde(default)]
    topics: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    paused: bool,
}

async fn administer(caller: &Caller) -> Result<Work> {
    let work = caller.begin().await?;
    work.user.must_administer()?;
    Ok(work)
}

pub(crate) async fn list(caller: Caller) -> Result<Json<Value>> {
    let mut work = administer(&caller).await?;
    let items = webhooks::list(&mut work.tx).await?;
    work.tx.commit().await?;
    Ok(Json(json!({"items": items, "topics": TOPICS, "limit": webhooks::MOST})))
}

/// One more. The answer has its secret, this once.
pub(crate) async fn add(caller: Caller, Json(new): Json<New>) -> Result<Response> {
    let mut work = administer(&caller).await?;
    let topics = new.topics.unwrap_or_else(|| vec!["*".to_owned()]);
    let created = webhooks::create(caller.tenant(), &mut work.tx, &new.url, &topics).await?;
    work.tx.commit().await?;
    let place = [(LOCATION, format!("/api/webhooks/{}", created.id)), (CACHE_CONTROL, "no-store".to_owned())];
    let body = json!({"id": created.id, "url": new.url, "topics": topics, "secret": created.secret});
    Ok((StatusCode::CREATED, place, Json(body)).into_response())
}

/// Goes on, or does not.
pub(crate) async fn change(caller: Caller, Path(webhook): Path<String>, Json(change): Json<Change>) -> Result<StatusCode> {
    done(&caller, &webhook, async |work, id| webhooks::pause(&mut work.tx, id, change.paused).await).await
}

pub(crate) async fn remove(caller: Caller, Path(webhook): Path<String>) -> Result<StatusCode> {
    done(&caller, &webhook, async |work, id| webhooks::remove(&mut work.tx, id).await).await
}

/// Posts something to it, to see whether it comes through.
pub(crate) async fn test(caller: Caller, Path(webhook): Path<String>) -> Result<StatusCode> {
    done(&caller, &webhook, async |work, id| webhooks::test(&mut work.tx, id).await).await
}

/// Another secret, told this once.
pub(crate) async fn rotate(caller: Caller, Path(webhook): Path<String>) -> Result<Response> {
    let mut work = administer(&caller).await?;
    let created = webhooks::rotate(caller.tenant(), &mut work.tx, id(&webhook)?).await?.ok_or_else(Error::not_found)?;
    work.tx.commit().await?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(created)).into_response())
}

async fn done(caller: &Caller, webhook: &str, change: impl AsyncFnOnce(&mut Work, Uuid) -> Result<bool>) -> Result<StatusCode> {
    let mut work = administer(caller).await?;
    if !change(&mut work, id(webhook)?).await? {
        return Err(Error::not_found());
    }
    work.tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
