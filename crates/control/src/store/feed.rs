//! The change feed's length. What is written into it, and in which order, is the work of the catalog's own triggers.

use sqlx::PgConnection;

use crate::error::Error;

/// Revisions that the feed still holds.
pub(crate) async fn length(conn: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT rev - oldest FROM catalog.revision").fetch_one(conn).await?)
}

/// Forgets all but the newest `keep` revisions; answers how many changes went.
pub(crate) async fn trim(conn: &mut PgConnection, keep: i64) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT catalog.trim_feed($1)").bind(keep).fetch_one(conn).await?)
}

/// Whether nobody else is trimming; we are, until the transaction ends.
pub(crate) async fn take_turn(tx: &mut PgConnection) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('trim feed', 0))").fetch_one(tx).await?)
}
