//! Digests: what happened in a workspace on one day of its own time zone.
//!
//! Always: a day has one digest, written once it is over, in the transaction that says so to the world.

pub mod job;

use chrono::{DateTime, NaiveDate, Utc};
use insula::{Error, Kind, Result, Tenant, TenantTx};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use sqlx::types::Json;
use uuid::Uuid;

use crate::documents::Number;
use crate::events;

/// When they are written, by the workspace's own clock: the day is over, and an hour that some nights lack or have twice is not touched.
pub const NIGHTLY: &str = "30 0 * * *";
/// Digests in a list.
pub const SHOWN: i64 = 30;
/// Entries that a digest keeps.
const ENTRIES: i64 = 50;
/// Days that a digest is kept.
const KEPT: i32 = 90;
/// A worker that was away writes no more than this many days late.
const LATE: i32 = 7;

/// A day.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Digest {
    /// Which.
    pub day: NaiveDate,
    /// The time zone that the day is of.
    pub zone: String,
    /// Documents made.
    pub created: i64,
    /// Changes to documents.
    pub changed: i64,
    /// Documents deleted.
    pub deleted: i64,
    /// The latest 50 of these, newest first.
    pub entries: Json<Vec<Entry>>,
    /// When it was written.
    pub made_at: DateTime<Utc>,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// `created`, `changed` or `deleted`.
    pub what: String,
    /// The document.
    pub id: Uuid,
    /// Its number.
    pub number: Number,
    /// Its title at that time.
    pub title: String,
    /// Who did it, when that user was still there.
    pub by: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// The newest digests (constraint `digests_day`).
///
/// # Errors
/// As the database says.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Digest>> {
    let sql = "SELECT day, zone, created, changed, deleted, entries, made_at FROM digests ORDER BY day DESC LIMIT $1";
    Ok(sqlx::query_as(sql).bind(SHOWN).fetch_all(tx).await?)
}

/// One day's.
///
/// # Errors
/// `NotFound`.
pub async fn read(tx: &mut TenantTx, day: NaiveDate) -> Result<Digest> {
    let sql = "SELECT day, zone, created, changed, deleted, entries, made_at FROM digests WHERE day = $1";
    sqlx::query_as(sql).bind(day).fetch_optional(tx).await?.ok_or_else(Error::not_found)
}

/// Writes the digests of all days that are over and have none, in one transaction. Answers how many.
///
/// # Errors
/// As the database says.
pub async fn write_missing(tenant: &Tenant) -> Result<usize> {
    let zone = tenant.settings().time_zone.as_str();
    match write_in(tenant, zone).await {
        // That ended the transaction.
        Err(error) if error.kind() == Kind::Invalid => {
            tracing::warn!(zone, "the database does not know this time zone: the digest's day is that of UTC");
            write_in(tenant, "UTC").await
        }
        written => written,
    }
}

async fn write_in(tenant: &Tenant, zone: &str) -> Result<usize> {
    let mut tx = tenant.begin().await?;
    let mut written = 0;
    for day in missing(&mut tx, zone).await? {
        if let Some(digest) = write(&mut tx, zone, day).await? {
            events::digest(&mut tx, &digest).await?;
            written += 1;
        }
    }
    sweep(&mut tx).await?;
    tx.commit().await?;
    Ok(written)
}

/// The days that are over and have no digest: yesterday, and those before that a worker missed since the last.
async fn missing(tx: &mut TenantTx, zone: &str) -> Result<Vec<NaiveDate>> {
    let sql = "WITH today AS (SELECT (now() AT TIME ZONE $1)::date AS day),
               first AS (SELECT greatest(coalesce((SELECT max(d.day) + 1 FROM digests d), today.day - 1), today.day - $2) AS day FROM today)
               SELECT first.day + n FROM today, first, LATERAL generate_series(0, today.day - 1 - first.day) n ORDER BY 1";
    Ok(sqlx::query_scalar(sql).bind(zone).bind(LATE).fetch_all(tx).await?)
}

/// Writes a day's digest; `None` when it has one (indexes `documents_created`, `document_versions_created`, `deletions_deleted`).
async fn write(tx: &mut TenantTx, zone: &str, day: NaiveDate) -> Result<Option<Digest>> {
    let sql = "WITH bounds AS MATERIALIZED (
             SELECT $1::date::timestamp AT TIME ZONE $2 AS began, ($1::date + 1)::timestamp AT TIME ZONE $2 AS ended
         ), entry AS (
             SELECT 'created' AS what, d.id, d.number, d.title, d.author AS by, d.created_at AS at
             FROM documents d WHERE d.created_at >= (SELECT began FROM bounds) AND d.created_at < (SELECT ended FROM bounds)
             UNION ALL
             SELECT 'changed', v.document, d.number, v.title, v.author, v.created_at
             FROM document_versions v JOIN documents d ON d.id = v.document
             WHERE v.version > 1 AND v.created_at >= (SELECT began FROM bounds) AND v.created_at < (SELECT ended FROM bounds)
             UNION ALL
             SELECT 'deleted', x.document, x.number, x.title, x.deleted_by, x.deleted_at
             FROM deletions x WHERE x.deleted_at >= (SELECT began FROM bounds) AND x.deleted_at < (SELECT ended FROM bounds)
         ), latest AS (
             SELECT e.what, e.id, e.number, e.title, u.email AS by, e.at
             FROM (SELECT * FROM entry ORDER BY at DESC LIMIT $3) e LEFT JOIN users u ON u.id = e.by
         )
         INSERT INTO digests (day, zone, created, changed, deleted, entries)
         SELECT $1, $2, count(*) FILTER (WHERE what = 'created'), count(*) FILTER (WHERE what = 'changed'),
                count(*) FILTER (WHERE what = 'deleted'),
                coalesce((SELECT jsonb_agg(to_jsonb(l) ORDER BY l.at DESC) FROM latest l), '[]') FROM entry
         ON CONFLICT ON CONSTRAINT digests_day DO NOTHING
         RETURNING day, zone, created, changed, deleted, entries, made_at";
    Ok(sqlx::query_as(sql).bind(day).bind(zone).bind(ENTRIES).fetch_optional(tx).await?)
}

/// Forgets what is old.
async fn sweep(tx: &mut TenantTx) -> Result<()> {
    sqlx::query("DELETE FROM digests WHERE day < current_date - $1").bind(KEPT).execute(&mut *tx).await?;
    let sql = "DELETE FROM deletions WHERE deleted_at < now() - make_interval(days => $1)";
    sqlx::query(sql).bind(LATE * 4).execute(&mut *tx).await?;
    Ok(())
}
