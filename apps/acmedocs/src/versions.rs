//! A document's past.

use chrono::{DateTime, Utc};
use insula::{Error, Result, TenantTx};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use crate::documents::{self, Change, Document, Format};

/// A version in a list.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Entry {
    /// From 1 up.
    pub version: i32,
    /// Its title then.
    pub title: String,
    /// Bytes of its body then.
    pub size: i32,
    /// Who wrote it, when that user is still there.
    pub author: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// A version, whole.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Version {
    /// From 1 up.
    pub version: i32,
    /// Its title then.
    pub title: String,
    /// Its body then.
    pub body: String,
    /// How the body is written.
    #[sqlx(try_from = "String")]
    pub format: Format,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// All versions, newest first (index `document_versions_pkey`).
///
/// # Errors
/// `NotFound` when there is no such document.
pub async fn list(tx: &mut TenantTx, document: Uuid) -> Result<Vec<Entry>> {
    let found: Vec<Entry> = sqlx::query_as(
        "SELECT v.version, v.title, octet_length(v.body) AS size, u.email AS author, v.created_at
         FROM document_versions v LEFT JOIN users u ON u.id = v.author
         WHERE v.document = $1 ORDER BY v.version DESC LIMIT 1000",
    )
    .bind(document)
    .fetch_all(&mut *tx)
    .await?;
    // Every document has a first version.
    if found.is_empty() { Err(Error::not_found()) } else { Ok(found) }
}

/// One version.
///
/// # Errors
/// `NotFound`.
pub async fn read(tx: &mut TenantTx, document: Uuid, version: i32) -> Result<Version> {
    let sql = "SELECT version, title, body, format, created_at FROM document_versions WHERE document = $1 AND version = $2";
    let found = sqlx::query_as(sql).bind(document).bind(version).fetch_optional(&mut *tx).await?;
    found.ok_or_else(Error::not_found)
}

/// Makes an old version the newest again; what is there now stays as a version.
///
/// # Errors
/// `NotFound`; `Precondition` when the document is at another version than `expected`.
pub async fn restore(tx: &mut TenantTx, author: Uuid, document: Uuid, version: i32, expected: Option<i32>) -> Result<Document> {
    let Version { title, body, format, .. } = read(tx, document, version).await?;
    let change = Change { title: Some(title), body: Some(body), format: Some(format), ..Change::default() };
    documents::update(tx, author, document, change, expected).await
}
