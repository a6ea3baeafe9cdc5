//! API keys: only their hashes are kept.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::cells::word;
use super::page::time_cursor;
use super::plans::json;
use crate::error::Error;
use crate::model::{ApiKey, Page, PageRequest, Scope};

fn read(row: &PgRow) -> Result<ApiKey, Error> {
    Ok(ApiKey {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        scope: json("scope", row.try_get::<String, _>("scope")?.into())?,
        created_at: row.try_get("created_at")?,
        last_used_at: row.try_get("last_used_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

pub(crate) async fn insert(conn: &mut PgConnection, name: &str, scope: Scope, hash: &[u8]) -> Result<ApiKey, Error> {
    let row = sqlx::query(
        "INSERT INTO catalog.api_key (id, name, scope, hash) VALUES ($1, $2, $3, $4)
         ON CONFLICT (hash) DO UPDATE SET name = excluded.name, scope = excluded.scope, revoked_at = NULL RETURNING *",
    )
    .bind(Uuid::now_v7())
    .bind(name)
    .bind(word(scope)?)
    .bind(hash)
    .fetch_one(conn)
    .await?;
    read(&row)
}

/// The key of this hash unless it was taken back; notes its use, once a minute at most.
pub(crate) async fn by_hash(conn: &mut PgConnection, hash: &[u8]) -> Result<Option<ApiKey>, Error> {
    let row = sqlx::query("SELECT * FROM catalog.api_key WHERE hash = $1 AND revoked_at IS NULL")
        .bind(hash)
        .fetch_optional(&mut *conn)
        .await?;
    let Some(key) = row.as_ref().map(read).transpose()? else { return Ok(None) };
    sqlx::query(
        "UPDATE catalog.api_key SET last_used_at = now()
         WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
    )
    .bind(key.id)
    .execute(conn)
    .await?;
    Ok(Some(key))
}

pub(crate) async fn in_force(conn: &mut PgConnection, id: Uuid) -> Result<bool, Error> {
    let found = sqlx::query_scalar("SELECT true FROM catalog.api_key WHERE id = $1 AND revoked_at IS NULL").bind(id);
    Ok(found.fetch_optional(conn).await?.unwrap_or(false))
}

pub(crate) async fn list(conn: &mut PgConnection, page: &PageRequest) -> Result<Page<ApiKey>, Error> {
    let after = page.time_key()?;
    let rows = sqlx::query(
        "SELECT * FROM catalog.api_key WHERE $1::timestamptz IS NULL OR (created_at, id) > ($1, $2)
         ORDER BY created_at, id LIMIT $3",
    )
    .bind(after.map(|k| k.at))
    .bind(after.map(|k| k.id))
    .bind(page.rows())
    .fetch_all(conn)
    .await?;
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page.page(items, |k| time_cursor(k.created_at, k.id)))
}

pub(crate) async fn revoke(conn: &mut PgConnection, id: Uuid) -> Result<Option<ApiKey>, Error> {
    let row = sqlx::query("UPDATE catalog.api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING *")
        .bind(id)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read).transpose()
}
