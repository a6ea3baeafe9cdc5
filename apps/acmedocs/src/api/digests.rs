//! `/api/digests`

use axum::extract::Path;
use insula::{Error, Json, Result};
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::digests::{self, Digest};

pub(crate) async fn list(caller: Caller) -> Result<Json<Value>> {
    let mut work = caller.begin().await?;
    let items = digests::list(&mut work.tx).await?;
    work.tx.commit().await?;
    Ok(Json(json!({"items": items})))
}

pub(crate) async fn read(caller: Caller, Path(day): Path<String>) -> Result<Json<Digest>> {
    let mut work = caller.begin().await?;
    // What is no day is the digest of none.
    let digest = digests::read(&mut work.tx, day.parse().map_err(|_| Error::not_found())?).await?;
    work.tx.commit().await?;
    Ok(Json(digest))
}
