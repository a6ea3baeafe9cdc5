//! Addresses that are told of events. Their secrets are derived from the root key, not kept.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::error::Error;
use crate::model::Webhook;

fn read(row: &PgRow) -> Result<Webhook, Error> {
    Ok(Webhook {
        id: row.try_get("id")?,
        url: row.try_get("url")?,
        topics: row.try_get("topics")?,
        created_at: row.try_get("created_at")?,
        disabled_at: row.try_get("disabled_at")?,
    })
}

pub(crate) async fn insert(conn: &mut PgConnection, url: &str, topics: &[String]) -> Result<Webhook, Error> {
    let row = sqlx::query("INSERT INTO catalog.webhook (id, url, topics) VALUES ($1, $2, $3) RETURNING *")
        .bind(Uuid::now_v7())
        .bind(url)
        .bind(topics)
        .fetch_one(conn)
        .await?;
    read(&row)
}

pub(crate) async fn all(conn: &mut PgConnection) -> Result<Vec<Webhook>, Error> {
    sqlx::query("SELECT * FROM catalog.webhook ORDER BY created_at, id").fetch_all(conn).await?.iter().map(read).collect()
}

pub(crate) async fn delete(conn: &mut PgConnection, id: Uuid) -> Result<bool, Error> {
    Ok(sqlx::query("DELETE FROM catalog.webhook WHERE id = $1").bind(id).execute(conn).await?.rows_affected() == 1)
}
