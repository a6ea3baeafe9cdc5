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
        verified_at: row.try_get("verified_at")?,
        created_at: row.try_get("created_at")?,
    })
}

/// Sorted by host: the primary key, or `domain_tenant` for one tenant's.
pub(crate) async fn list(conn: &mut PgConnection, tenant: Option<Uuid>, page: &PageRequest) -> Result<Page<Domain>, Error> {
    let rows = sqlx::query(
        "SELECT d.*, t.slug FROM catalog.domain d JOIN catalog.tenant t ON t.id = d.tenant
         WHERE d.host > $1 AND ($2::uuid IS NULL OR d.tenant = $2) ORDER BY d.host LIMIT $3",
    )
    .bind(page.name_key()?)
    .bind(tenant)
    .bind(page.rows())
    .fetch_all(conn)
    .await?;
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page.page(items, |d| d.host.clone()))
}

/// Inserts; `None` when the host is taken.
pub(crate) async fn insert(conn: &mut PgConnection, host: &str, tenant: Uuid) -> Result<Option<Domain>, Error> {
    let row = sqlx::query(
        "WITH d AS (INSERT INTO catalog.domain (host, tenant, verified_at) VALUES ($1, $2, now()) ON CONFLICT (host) DO NOTHING RETURNING *)
         SELECT d.*, t.slug FROM d JOIN catalog.tenant t ON t.id = d.tenant",
    )
    .bind(host)
    .bind(tenant)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

/// Whether it was there.
pub(crate) async fn delete(conn: &mut PgConnection, host: &str, tenant: Uuid) -> Result<bool, Error> {
    let done =
        sqlx::query("DELETE FROM catalog.domain WHERE host = $1 AND tenant = $2").bind(host).bind(tenant).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}
