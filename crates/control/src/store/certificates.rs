//! Certificates of host names, with their sealed keys.

use chrono::{DateTime, Utc};
use insula_api::certificate::Certificate;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use crate::error::Error;
use crate::handle::certificates::chain_not_after;

/// A certificate with its sealed key.
pub(crate) struct Sealed {
    pub(crate) name: String,
    pub(crate) chain: String,
    pub(crate) sealed_key: Vec<u8>,
}

fn read(row: &PgRow) -> Result<Certificate, Error> {
    Ok(Certificate {
        name: row.try_get("name")?,
        fingerprint: row.try_get("fingerprint")?,
        updated_at: row.try_get("updated_at")?,
        not_after: match row.try_get("not_after")? {
            Some(end) => Some(end),
            // It is there as long as nobody wrote the end down.
            None => row.try_get::<Option<String>, _>("chain")?.as_deref().and_then(chain_not_after),
        },
    })
}

/// Inserts, or replaces the one of that name.
pub(crate) async fn put(
    conn: &mut PgConnection,
    new: &Sealed,
    fingerprint: &str,
    not_after: Option<DateTime<Utc>>,
) -> Result<Certificate, Error> {
    let row = sqlx::query(
        "INSERT INTO catalog.certificate (name, chain, sealed_key, fingerprint, not_after) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (name) DO UPDATE SET chain = excluded.chain, sealed_key = excluded.sealed_key,
             fingerprint = excluded.fingerprint, not_after = excluded.not_after, updated_at = excluded.updated_at
         RETURNING name, fingerprint, updated_at, not_after, NULL::text AS chain",
    )
    .bind(&new.name)
    .bind(&new.chain)
    .bind(&new.sealed_key)
    .bind(fingerprint)
    .bind(not_after)
    .fetch_one(conn)
    .await?;
    read(&row)
}

pub(crate) async fn all(conn: &mut PgConnection) -> Result<Vec<Certificate>, Error> {
    let sql = "SELECT name, fingerprint, updated_at, not_after, CASE WHEN not_after IS NULL THEN chain END AS chain
               FROM catalog.certificate ORDER BY name";
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter().map(read).collect()
}

pub(crate) async fn count(conn: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM catalog.certificate").fetch_one(conn).await?)
}

/// Another text whenever one is put or taken away.
pub(crate) async fn state(conn: &mut PgConnection) -> Result<String, Error> {
    let state = "SELECT coalesce(md5(string_agg(name || ' ' || extract(epoch FROM updated_at), ',' ORDER BY name)), 'none')
                 FROM catalog.certificate";
    Ok(sqlx::query_scalar(state).fetch_one(conn).await?)
}

pub(crate) async fn sealed(conn: &mut PgConnection) -> Result<Vec<Sealed>, Error> {
    let rows = sqlx::query("SELECT name, chain, sealed_key FROM catalog.certificate ORDER BY name").fetch_all(conn).await?;
    let read = |row: &PgRow| {
        Ok(Sealed { name: row.try_get("name")?, chain: row.try_get("chain")?, sealed_key: row.try_get("sealed_key")? })
    };
    rows.iter().map(read).collect()
}

/// Whether there was one.
pub(crate) async fn delete(conn: &mut PgConnection, name: &str) -> Result<bool, Error> {
    let gone = sqlx::query("DELETE FROM catalog.certificate WHERE name = $1").bind(name).execute(conn).await?;
    Ok(gone.rows_affected() > 0)
}
