//! Identity providers, keys of tenants, and the public halves of the keys that sign tenant contexts.

use chrono::{DateTime, Utc};
use insula_api::identity::{ContextKey, CreateProvider, Provider, TenantKey};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::page::time_cursor;
use crate::error::Error;
use crate::model::{Page, PageRequest};

fn provider(row: &PgRow) -> Result<Provider, Error> {
    Ok(Provider {
        id: row.try_get::<Uuid, _>("id")?.into(),
        tenant: row.try_get::<Option<Uuid>, _>("tenant")?.map(Into::into),
        issuer: row.try_get("issuer")?,
        audience: row.try_get("audience")?,
        jwks_url: row.try_get("jwks_url")?,
        subject_claim: row.try_get("subject_claim")?,
        scopes_claim: row.try_get("scopes_claim")?,
        tenant_claim: row.try_get("tenant_claim")?,
        tenant_value: row.try_get("tenant_value")?,
        created_at: row.try_get("created_at")?,
    })
}

/// Inserts; `None` when it is there already. The claims are there: `handle` has filled them in.
pub(crate) async fn insert_provider(
    conn: &mut PgConnection,
    tenant: Option<Uuid>,
    new: &CreateProvider,
) -> Result<Option<Provider>, Error> {
    let row = sqlx::query(
        "INSERT INTO catalog.identity_provider
             (id, tenant, issuer, audience, jwks_url, subject_claim, scopes_claim, tenant_claim, tenant_value)
         VALUES ($1, $2, $3, $4, $5, coalesce($6, 'sub'), coalesce($7, 'scope'), $8, $9)
         ON CONFLICT DO NOTHING RETURNING *",
    )
    .bind(Uuid::now_v7())
    .bind(tenant)
    .bind(&new.issuer)
    .bind(&new.audience)
    .bind(&new.jwks_url)
    .bind(&new.subject_claim)
    .bind(&new.scopes_claim)
    .bind(&new.tenant_claim)
    .bind(&new.tenant_value)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(provider).transpose()
}

/// Providers of the same issuer and audience, by `identity_provider_issuer`.
pub(crate) async fn siblings(conn: &mut PgConnection, issuer: &str, audience: &str) -> Result<Vec<Provider>, Error> {
    let rows = sqlx::query("SELECT * FROM catalog.identity_provider WHERE issuer = $1 AND audience = $2")
        .bind(issuer)
        .bind(audience)
        .fetch_all(conn)
        .await?;
    rows.iter().map(provider).collect()
}

pub(crate) async fn providers(
    conn: &mut PgConnection,
    tenant: Option<Uuid>,
    page: &PageRequest,
) -> Result<Page<Provider>, Error> {
    let after = page.time_key()?;
    let rows = sqlx::query(
        "SELECT * FROM catalog.identity_provider
         WHERE ($1::timestamptz IS NULL OR (created_at, id) > ($1, $2)) AND ($3::uuid IS NULL OR tenant = $3)
         ORDER BY created_at, id LIMIT $4",
    )
    .bind(after.map(|k| k.at))
    .bind(after.map(|k| k.id))
    .bind(tenant)
    .bind(page.rows())
    .fetch_all(conn)
    .await?;
    let items = rows.iter().map(provider).collect::<Result<Vec<_>, _>>()?;
    Ok(page.page(items, |p| time_cursor(p.created_at, p.id.uuid())))
}

pub(crate) async fn delete_provider(conn: &mut PgConnection, id: Uuid) -> Result<Option<Provider>, Error> {
    let row =
        sqlx::query("DELETE FROM catalog.identity_provider WHERE id = $1 RETURNING *").bind(id).fetch_optional(conn).await?;
    row.as_ref().map(provider).transpose()
}

fn key(row: &PgRow) -> Result<TenantKey, Error> {
    Ok(TenantKey {
        id: row.try_get::<Uuid, _>("id")?.into(),
        tenant: row.try_get::<Uuid, _>("tenant")?.into(),
        name: row.try_get("name")?,
        scopes: row.try_get("scopes")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

pub(crate) async fn insert_key(
    conn: &mut PgConnection,
    tenant: Uuid,
    name: &str,
    scopes: &[String],
    expires_at: Option<DateTime<Utc>>,
    hash: &[u8],
) -> Result<TenantKey, Error> {
    let row = sqlx::query(
        "INSERT INTO catalog.tenant_key (id, tenant, name, hash, scopes, expires_at) VALUES ($1, $2, $3, $4, $5, $6) RETURNING *",
    )
    .bind(Uuid::now_v7())
    .bind(tenant)
    .bind(name)
    .bind(hash)
    .bind(scopes)
    .bind(expires_at)
    .fetch_one(conn)
    .await?;
    key(&row)
}

/// By `tenant_key_tenant`.
pub(crate) async fn keys(conn: &mut PgConnection, tenant: Uuid, page: &PageRequest) -> Result<Page<TenantKey>, Error> {
    let after = page.time_key()?;
    let rows = sqlx::query(
        "SELECT * FROM catalog.tenant_key
         WHERE tenant = $3 AND ($1::timestamptz IS NULL OR (created_at, id) > ($1, $2)) ORDER BY created_at, id LIMIT $4",
    )
    .bind(after.map(|k| k.at))
    .bind(after.map(|k| k.id))
    .bind(tenant)
    .bind(page.rows())
    .fetch_all(conn)
    .await?;
    let items = rows.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    Ok(page.page(items, |k| time_cursor(k.created_at, k.id.uuid())))
}

pub(crate) async fn revoke_key(conn: &mut PgConnection, tenant: Uuid, id: Uuid) -> Result<Option<TenantKey>, Error> {
    let row = sqlx::query(
        "UPDATE catalog.tenant_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 AND tenant = $2 RETURNING *",
    )
    .bind(id)
    .bind(tenant)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(key).transpose()
}

fn context_key(row: &PgRow) -> Result<ContextKey, Error> {
    Ok(ContextKey {
        no: row.try_get("no")?,
        kid: row.try_get("kid")?,
        created_at: row.try_get("created_at")?,
        signs_from: row.try_get("signs_from")?,
        ends_at: row.try_get("ends_at")?,
    })
}

/// All keys that still verify something, newest first.
pub(crate) async fn context_keys(conn: &mut PgConnection) -> Result<Vec<ContextKey>, Error> {
    let rows = sqlx::query("SELECT * FROM catalog.context_key WHERE ends_at IS NULL OR ends_at > now() ORDER BY no DESC")
        .fetch_all(conn)
        .await?;
    rows.iter().map(context_key).collect()
}

/// The public halves of [`context_keys`].
pub(crate) async fn public_context_keys(conn: &mut PgConnection) -> Result<Vec<[u8; 32]>, Error> {
    let keys: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT public_key FROM catalog.context_key WHERE ends_at IS NULL OR ends_at > now() ORDER BY no DESC",
    )
    .fetch_all(conn)
    .await?;
    // The table holds 32 bytes each.
    Ok(keys.into_iter().filter_map(|key| key.try_into().ok()).collect())
}

/// The newest key, locked against another rotation; `None` when there is none yet.
pub(crate) async fn lock_newest_context_key(conn: &mut PgConnection) -> Result<Option<ContextKey>, Error> {
    sqlx::query("LOCK TABLE catalog.context_key IN SHARE ROW EXCLUSIVE MODE").execute(&mut *conn).await?;
    let row = sqlx::query("SELECT * FROM catalog.context_key ORDER BY no DESC LIMIT 1").fetch_optional(conn).await?;
    row.as_ref().map(context_key).transpose()
}

pub(crate) async fn insert_context_key(
    conn: &mut PgConnection,
    no: i32,
    key: &insula_core::token::ContextKey,
    signs_from: DateTime<Utc>,
) -> Result<ContextKey, Error> {
    let row =
        sqlx::query("INSERT INTO catalog.context_key (no, kid, public_key, signs_from) VALUES ($1, $2, $3, $4) RETURNING *")
            .bind(no)
            .bind(key.kid())
            .bind(&key.public()[..])
            .bind(signs_from)
            .fetch_one(conn)
            .await?;
    context_key(&row)
}

pub(crate) async fn end_context_key(conn: &mut PgConnection, no: i32, at: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query("UPDATE catalog.context_key SET ends_at = $2 WHERE no = $1").bind(no).bind(at).execute(conn).await?;
    Ok(())
}
