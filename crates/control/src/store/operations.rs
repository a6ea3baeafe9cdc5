//! Operations as anyone may read them. What the engine writes is in `operation/record.rs`.

use insula_core::OperationId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::cells::word;
use super::page::time_cursor;
use super::plans::json;
use crate::error::Error;
use crate::model::{Operation, OperationEvent, OperationFilter, Page, PageRequest};

pub(crate) fn read(row: &PgRow) -> Result<Operation, Error> {
    let error: Option<serde_json::Value> = row.try_get("error")?;
    Ok(Operation {
        id: row.try_get::<Uuid, _>("id")?.into(),
        kind: row.try_get("kind")?,
        tenant: row.try_get::<Option<Uuid>, _>("tenant")?.map(Into::into),
        state: json("operation state", row.try_get::<String, _>("state")?.into())?,
        step: row.try_get("step")?,
        steps_done: row.try_get("steps_done")?,
        steps_total: row.try_get("steps_total")?,
        output: row.try_get("output")?,
        error: error.map(|e| json("operation's error", e)).transpose()?,
        attempts: row.try_get("attempts")?,
        created_by: row.try_get("created_by")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}

pub(crate) async fn get(conn: &mut PgConnection, id: OperationId) -> Result<Operation, Error> {
    let row = sqlx::query("SELECT * FROM catalog.operation WHERE id = $1").bind(id.uuid()).fetch_optional(conn).await?;
    read(&row.ok_or_else(|| Error::not_found("operation", id))?)
}

/// The operation of an idempotency key, and its input.
pub(crate) async fn by_key(conn: &mut PgConnection, key: &str) -> Result<Option<(Operation, serde_json::Value)>, Error> {
    let row = sqlx::query("SELECT * FROM catalog.operation WHERE key = $1").bind(key).fetch_optional(conn).await?;
    row.map(|row| Ok((read(&row)?, row.try_get("input")?))).transpose()
}

/// Newest first. Index: `operation_page`, or `operation_tenant` for one tenant's.
pub(crate) async fn list(
    conn: &mut PgConnection,
    filter: &OperationFilter,
    page: &PageRequest,
) -> Result<Page<Operation>, Error> {
    let after = page.time_key()?;
    let rows = sqlx::query(
        "SELECT * FROM catalog.operation
         WHERE ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2)) AND ($3::uuid IS NULL OR tenant = $3)
           AND ($4::text IS NULL OR state = $4) AND ($5::text IS NULL OR kind = $5)
         ORDER BY created_at DESC, id DESC LIMIT $6",
    )
    .bind(after.map(|k| k.at))
    .bind(after.map(|k| k.id))
    .bind(filter.tenant.map(insula_core::TenantId::uuid))
    .bind(filter.state.map(word).transpose()?)
    .bind(&filter.kind)
    .bind(page.rows())
    .fetch_all(conn)
    .await?;
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page.page(items, |o| time_cursor(o.created_at, o.id.uuid())))
}

/// Events that are read at once.
pub(crate) const MOST_EVENTS: usize = 1000;

/// Events after `seq`, oldest first, [`MOST_EVENTS`] of them at most. Index: the primary key.
pub(crate) async fn events(conn: &mut PgConnection, id: OperationId, seq: i64) -> Result<Vec<OperationEvent>, Error> {
    let rows = sqlx::query(
        "SELECT seq, at, step, what, detail FROM catalog.operation_event WHERE operation = $1 AND seq > $2 ORDER BY seq LIMIT 1000",
    )
    .bind(id.uuid())
    .bind(seq)
    .fetch_all(conn)
    .await?;
    let read = |row: &PgRow| {
        Ok(OperationEvent {
            seq: row.try_get("seq")?,
            at: row.try_get("at")?,
            step: row.try_get("step")?,
            what: row.try_get("what")?,
            detail: row.try_get("detail")?,
        })
    };
    rows.iter().map(read).collect::<Result<Vec<_>, sqlx::Error>>().map_err(Error::from)
}

/// The operation that is at work on a tenant.
pub(crate) async fn unfinished(conn: &mut PgConnection, tenant: Uuid) -> Result<Option<(Uuid, String)>, Error> {
    Ok(sqlx::query_as(
        "SELECT id, kind FROM catalog.operation WHERE tenant = $1 AND state IN ('pending', 'running', 'undoing') LIMIT 1",
    )
    .bind(tenant)
    .fetch_optional(conn)
    .await?)
}
