//! Host names of tenants.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::plans::parse;
use crate::error::Error;
use crate::model::{Domain, Page, PageRequest};

fn read(row: &PgRow) -> Result<Domain, Error> {
    Ok(Domain {
        host: row.try_get("host")?,
        tenant: row.try_get::<Uuid, _>("tenant")?.into(),
        slug: parse("slug", row.try_get::<String, _>("slug")?.parse())?,
        challenge: row.try_get("challenge")?,
        verified_at: row.try_get("verified_at")?,
        created_at: row.try_get("created_at")?,
    })
}

/// Sorted by host (index `domain_tenant`).
pub(crate) async fn list(conn: &mut PgConnection, tenant: Uuid, page: &PageRequest) -> Result<Page<Domain>, Error> {
    let rows = sqlx::query(
        "SELECT d.*, t.slug FROM catalog.domain d JOIN catalog.tenant t ON t.id = d.tenant
         WHERE d.host > $1 AND d.tenant = $2 ORDER BY d.host LIMIT $3",
    )
    .bind(page.name_key()?)
    .bind(tenant)
    .bind(page.rows())
    .fetch_all(conn)
    .await?;
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page.page(items, |d| d.host.clone()))
}

pub(crate) async fn get(conn: &mut PgConnection, host: &str, tenant: Uuid) -> Result<Option<Domain>, Error> {
    let row = sqlx::query(
        "SELECT d.*, t.slug FROM catalog.domain d JOIN catalog.tenant t ON t.id = d.tenant WHERE d.host = $1 AND d.tenant = $2",
    )
    .bind(host)
    .bind(tenant)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Whose it is, proven (index `domain_verified`).
pub(crate) async fn holder(conn: &mut PgConnection, host: &str) -> Result<Option<Uuid>, Error> {
    let sql = "SELECT tenant FROM catalog.domain WHERE host = $1 AND verified_at IS NOT NULL";
    Ok(sqlx::query_scalar(sql).bind(host).fetch_optional(conn).await?)
}

/// Inserts a claim; `None` when the tenant has it.
pub(crate) async fn insert(conn: &mut PgConnection, host: &str, tenant: Uuid) -> Result<Option<Domain>, Error> {
    let row = sqlx::query(
        "WITH d AS (INSERT INTO catalog.domain (host, tenant) VALUES ($1, $2) ON CONFLICT (host, tenant) DO NOTHING RETURNING *)
         SELECT d.*, t.slug FROM d JOIN catalog.tenant t ON t.id = d.tenant",
    )
    .bind(host)
    .bind(tenant)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Makes a claim good; when it was good before, it stays so since then. A unique violation says that another tenant's is.
pub(crate) async fn verify(conn: &mut PgConnection, host: &str, tenant: Uuid) -> Result<Option<Domain>, Error> {
    let row = sqlx::query(
        "WITH d AS (UPDATE catalog.domain SET verified_at = COALESCE(verified_at, now()) WHERE host = $1 AND tenant = $2 RETURNING *)
         SELECT d.*, t.slug FROM d JOIN catalog.tenant t ON t.id = d.tenant",
    )
    .bind(host)
    .bind(tenant)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Takes a name from tenants that are gone, so that it can be proven by another.
pub(crate) async fn forget_deleted(conn: &mut PgConnection, host: &str) -> Result<(), Error> {
    sqlx::query(
        "DELETE FROM catalog.domain d USING catalog.tenant t WHERE d.host = $1 AND t.id = d.tenant AND t.state = 'deleted'",
    )
    .bind(host)
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether it was there.
pub(crate) async fn delete(conn: &mut PgConnection, host: &str, tenant: Uuid) -> Result<bool, Error> {
    let done =
        sqlx::query("DELETE FROM catalog.domain WHERE host = $1 AND tenant = $2").bind(host).bind(tenant).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}
