//! The audit log: append and read.

use serde_json::Value;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::error::Error;
use crate::model::{AuditEntry, AuditFilter, Page, PageRequest};

/// Appends one line. Holds the log's head until the transaction ends: let it be the last statement before COMMIT.
pub(crate) async fn append(
    conn: &mut PgConnection,
    actor: &str,
    action: &str,
    tenant: Option<Uuid>,
    target: &str,
    detail: &Value,
) -> Result<i64, Error> {
    let seq = sqlx::query_scalar("SELECT catalog.audit_append($1, $2, $3, $4, $5)")
        .bind(actor)
        .bind(action)
        .bind(tenant)
        .bind(target)
        .bind(detail)
        .fetch_one(conn)
        .await?;
    Ok(seq)
}

/// Newest first. Relies on the primary key and `audit_tenant`.
pub(crate) async fn list(conn: &mut PgConnection, filter: &AuditFilter, page: &PageRequest) -> Result<Page<AuditEntry>, Error> {
    let rows = sqlx::query(
        "SELECT seq, at, actor, action, tenant, target, detail, hash FROM catalog.audit
         WHERE ($1::bigint IS NULL OR seq < $1) AND ($2::uuid IS NULL OR tenant = $2) AND ($3::text IS NULL OR action = $3)
         ORDER BY seq DESC LIMIT $4",
    )
    .bind(page.number_key()?)
    .bind(filter.tenant.map(insula_core::TenantId::uuid))
    .bind(&filter.action)
    .bind(page.rows())
    .fetch_all(conn)
    .await?;
    let items = rows
        .iter()
        .map(|row| {
            Ok(AuditEntry {
                seq: row.try_get("seq")?,
                at: row.try_get("at")?,
                actor: row.try_get("actor")?,
                action: row.try_get("action")?,
                tenant: row.try_get::<Option<Uuid>, _>("tenant")?.map(Into::into),
                target: row.try_get("target")?,
                detail: row.try_get("detail")?,
                hash: row.try_get("hash")?,
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    Ok(page.page(items, |e| e.seq.to_string()))
}

/// The first line that does not fit the chain.
pub(crate) async fn verify(conn: &mut PgConnection) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar("SELECT catalog.audit_verify()").fetch_one(conn).await?)
}
