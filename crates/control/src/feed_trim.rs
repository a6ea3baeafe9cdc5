//! Keeps the change feed from growing for ever.
//!
//! Not for: what a follower does that is further behind than the feed reaches (it loads the catalog anew, see
//! `insula_catalog`). Always: one control plane at a time, in slices: a slice holds the row that every change of the catalog
//! waits for at its commit.

use crate::error::Error;
use crate::handle::Control;
use crate::store;

/// Revisions that one transaction forgets.
const SLICE: i64 = 5_000;

/// Forgets what is past the configured number by a tenth: not at each round for a handful.
pub(crate) async fn reconcile(control: &Control) -> Result<(), Error> {
    let keep = control.config().keep_revisions;
    let length = store::feed::length(&mut *control.catalog_pool().acquire().await?).await?;
    if length > keep.saturating_add(keep / 10) {
        let forgotten = trim(control).await?;
        tracing::info!(forgotten, keep, "trimmed the change feed");
    }
    Ok(())
}

/// Forgets all but the newest revisions that are to be kept; answers how many changes went. Another control plane that is at
/// it already does it for us.
pub(crate) async fn trim(control: &Control) -> Result<i64, Error> {
    let keep = control.config().keep_revisions.max(0);
    let mut turn = control.catalog_pool().begin().await?;
    if !store::feed::take_turn(&mut turn).await? {
        return Ok(0);
    }
    let mut forgotten = 0;
    loop {
        // On a connection of its own: each slice ends by itself, the turn lasts.
        let mut conn = control.catalog_pool().acquire().await?;
        let length = store::feed::length(&mut conn).await?;
        if length <= keep || control.engine().stopped().is_cancelled() {
            break;
        }
        forgotten += store::feed::trim(&mut conn, keep.max(length - SLICE)).await?;
    }
    turn.commit().await?;
    Ok(forgotten)
}
