//! Configuration documents.

use std::sync::Arc;

use insula_api::document as api;
use insula_catalog::document::{Canary, Document, DocumentVersion};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::plans::parse;
use crate::error::Error;

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT d.*, (SELECT max(v.version) FROM catalog.document_version v WHERE v.name = d.name) AS newest
             FROM catalog.document d ",
            $tail
        )
    };
}

fn read(row: &PgRow) -> Result<api::Document, Error> {
    let percent: i32 = row.try_get("canary_percent")?;
    let tenants: Vec<Uuid> = row.try_get("canary_tenants")?;
    let canary: Option<i64> = row.try_get("canary")?;
    let percent = parse("percentage", u8::try_from(percent))?;
    Ok(api::Document {
        name: row.try_get("name")?,
        newest: row.try_get("newest")?,
        stable: row.try_get("stable")?,
        previous: row.try_get("previous")?,
        canary: canary.map(|version| api::Canary { version, percent, tenants: tenants.into_iter().map(Into::into).collect() }),
        version: row.try_get("version")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn read_version(row: &PgRow) -> Result<api::DocumentVersion, Error> {
    Ok(api::DocumentVersion {
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        value: row.try_get("body")?,
        note: row.try_get("note")?,
        created_by: row.try_get("created_by")?,
        created_at: row.try_get("created_at")?,
    })
}

/// One put at a time, so that versions are numbered without holes.
pub(crate) async fn lock_all(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("LOCK TABLE catalog.document_version IN SHARE ROW EXCLUSIVE MODE").execute(conn).await?;
    Ok(())
}

pub(crate) async fn all(conn: &mut PgConnection) -> Result<Vec<api::Document>, Error> {
    sqlx::query(select!("ORDER BY d.name")).fetch_all(conn).await?.iter().map(read).collect()
}

pub(crate) async fn get(conn: &mut PgConnection, name: &str) -> Result<Option<api::Document>, Error> {
    let row = sqlx::query(select!("WHERE d.name = $1")).bind(name).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

/// A document, locked against other rollouts.
pub(crate) async fn lock(conn: &mut PgConnection, name: &str) -> Result<Option<api::Document>, Error> {
    let row = sqlx::query(select!("WHERE d.name = $1 FOR UPDATE OF d")).bind(name).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

pub(crate) async fn count(conn: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM catalog.document").fetch_one(conn).await?)
}

pub(crate) async fn newest(conn: &mut PgConnection, name: &str) -> Result<Option<api::DocumentVersion>, Error> {
    let row = sqlx::query("SELECT * FROM catalog.document_version WHERE name = $1 ORDER BY version DESC LIMIT 1")
        .bind(name)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read_version).transpose()
}

/// Newest first.
pub(crate) async fn versions(conn: &mut PgConnection, name: &str) -> Result<Vec<api::DocumentVersion>, Error> {
    let rows = sqlx::query("SELECT * FROM catalog.document_version WHERE name = $1 ORDER BY version DESC LIMIT 100")
        .bind(name)
        .fetch_all(conn)
        .await?;
    rows.iter().map(read_version).collect()
}

pub(crate) async fn insert(
    conn: &mut PgConnection,
    name: &str,
    version: i64,
    put: &api::PutDocument,
    actor: &str,
) -> Result<api::DocumentVersion, Error> {
    let row = sqlx::query(
        "INSERT INTO catalog.document_version (name, version, body, note, created_by) VALUES ($1, $2, $3, $4, $5) RETURNING *",
    )
    .bind(name)
    .bind(version)
    .bind(&put.value)
    .bind(&put.note)
    .bind(actor)
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query("INSERT INTO catalog.document (name) VALUES ($1) ON CONFLICT DO NOTHING").bind(name).execute(conn).await?;
    read_version(&row)
}

/// Puts a version in force for all.
pub(crate) async fn set_stable(conn: &mut PgConnection, name: &str, version: i64) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.document SET previous = CASE WHEN stable = $2 THEN previous ELSE stable END, stable = $2,
             canary = NULL, canary_percent = 0, canary_tenants = '{}', version = version + 1, updated_at = now()
         WHERE name = $1",
    )
    .bind(name)
    .bind(version)
    .execute(conn)
    .await?;
    Ok(())
}

/// Puts a version in force for some.
pub(crate) async fn set_canary(
    conn: &mut PgConnection,
    name: &str,
    version: i64,
    percent: u8,
    tenants: &[Uuid],
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.document SET canary = $2, canary_percent = $3, canary_tenants = $4, version = version + 1,
             updated_at = now() WHERE name = $1",
    )
    .bind(name)
    .bind(version)
    .bind(i32::from(percent))
    .bind(tenants)
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends the rollout under way; when there is none, puts the version before in force.
pub(crate) async fn back(conn: &mut PgConnection, name: &str) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.document SET stable = CASE WHEN canary IS NULL THEN previous ELSE stable END,
             previous = CASE WHEN canary IS NULL THEN NULL ELSE previous END,
             canary = NULL, canary_percent = 0, canary_tenants = '{}', version = version + 1, updated_at = now()
         WHERE name = $1",
    )
    .bind(name)
    .execute(conn)
    .await?;
    Ok(())
}

/// What is in force, of every document.
pub(crate) async fn in_force(conn: &mut PgConnection) -> Result<Vec<Document>, Error> {
    let rows = sqlx::query(
        "SELECT d.name, d.stable, s.body AS stable_body, d.canary, c.body AS canary_body, d.canary_percent, d.canary_tenants
         FROM catalog.document d
         LEFT JOIN catalog.document_version s ON s.name = d.name AND s.version = d.stable
         LEFT JOIN catalog.document_version c ON c.name = d.name AND c.version = d.canary ORDER BY d.name",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(read_in_force).collect()
}

fn read_in_force(row: &PgRow) -> Result<Document, Error> {
    let version = |number: Option<i64>, body: Option<Value>| Some(DocumentVersion { version: number?, value: Arc::new(body?) });
    let percent: i32 = row.try_get("canary_percent")?;
    let percent = parse("percentage", u8::try_from(percent))?;
    let tenants: Vec<Uuid> = row.try_get("canary_tenants")?;
    let canary = version(row.try_get("canary")?, row.try_get("canary_body")?);
    Ok(Document {
        name: row.try_get::<String, _>("name")?.into(),
        stable: version(row.try_get("stable")?, row.try_get("stable_body")?),
        canary: canary.map(|version| Canary { version, percent, tenants: tenants.into_iter().map(Into::into).collect() }),
    })
}
