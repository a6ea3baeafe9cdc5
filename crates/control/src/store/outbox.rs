//! Events for the outside, written in the transaction of what they tell of.

use serde_json::Value;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::error::Error;

/// An event to be delivered.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: i64,
    pub(crate) topic: String,
    pub(crate) tenant: Option<Uuid>,
    pub(crate) payload: Value,
    pub(crate) attempts: i32,
    pub(crate) created_at: chrono::DateTime<chrono::Utc>,
}

pub(crate) async fn insert(conn: &mut PgConnection, topic: &str, tenant: Option<Uuid>, payload: &Value) -> Result<(), Error> {
    sqlx::query("INSERT INTO catalog.outbox (topic, tenant, payload) VALUES ($1, $2, $3)")
        .bind(topic)
        .bind(tenant)
        .bind(payload)
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes what is due, and keeps others (and our own next round) off it for a minute. Index: `outbox_due`.
pub(crate) async fn claim(conn: &mut PgConnection, most: i64) -> Result<Vec<Event>, Error> {
    let rows = sqlx::query(
        "UPDATE catalog.outbox o SET next_at = now() + interval '1 minute'
         FROM (SELECT id FROM catalog.outbox WHERE delivered_at IS NULL AND next_at <= now()
               ORDER BY next_at, id LIMIT $1 FOR UPDATE SKIP LOCKED) due
         WHERE o.id = due.id RETURNING o.id, topic, tenant, payload, attempts, created_at",
    )
    .bind(most)
    .fetch_all(conn)
    .await?;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Event {
            id: row.try_get("id")?,
            topic: row.try_get("topic")?,
            tenant: row.try_get("tenant")?,
            payload: row.try_get("payload")?,
            attempts: row.try_get("attempts")?,
            created_at: row.try_get("created_at")?,
        })
    };
    rows.iter().map(read).collect::<Result<Vec<_>, sqlx::Error>>().map_err(Error::from)
}

pub(crate) async fn delivered(conn: &mut PgConnection, ids: &[i64]) -> Result<(), Error> {
    sqlx::query("UPDATE catalog.outbox SET delivered_at = now(), last_error = NULL WHERE id = ANY ($1)")
        .bind(ids)
        .execute(conn)
        .await?;
    Ok(())
}

pub(crate) async fn failed(conn: &mut PgConnection, id: i64, again_in: std::time::Duration, why: &str) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.outbox SET attempts = attempts + 1, next_at = now() + make_interval(secs => $2), last_error = $3 WHERE id = $1",
    )
    .bind(id)
    .bind(again_in.as_secs_f64())
    .bind(why)
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn waiting(conn: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM catalog.outbox WHERE delivered_at IS NULL").fetch_one(conn).await?)
}
