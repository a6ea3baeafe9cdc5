//! What the world may be told of: topics, and what an event of each says.
//!
//! Always: an event is published in the transaction of what it tells of; it says what and where, not the text itself.

use insula::events::publish;
use insula::{Error, Result, TenantTx};
use serde::Serialize;
use uuid::Uuid;

use crate::digests::Digest;
use crate::documents::{Document, Number};

/// A document was made.
pub const CREATED: &str = "document.created";
/// A document was changed.
pub const UPDATED: &str = "document.updated";
/// A document was deleted.
pub const DELETED: &str = "document.deleted";
/// A day's digest is there, and not empty.
pub const DIGEST: &str = "digest.ready";
/// An export's file is there.
pub const EXPORT: &str = "export.ready";

/// All of them.
pub const TOPICS: [&str; 5] = [CREATED, UPDATED, DELETED, DIGEST, EXPORT];

/// What happened to a document.
#[derive(Serialize)]
struct Happened<'a> {
    id: Uuid,
    number: Number,
    title: &'a str,
    /// Absent when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i32>,
    /// The user's id.
    by: Uuid,
}

/// # Errors
/// As the database says.
pub(crate) async fn document(tx: &mut TenantTx, topic: &str, document: &Document, by: Uuid) -> Result<()> {
    let Document { id, number, title, version, .. } = document;
    tell(tx, topic, &Happened { id: *id, number: *number, title, version: Some(*version), by }).await
}

/// # Errors
/// As the database says.
pub(crate) async fn deleted(tx: &mut TenantTx, id: Uuid, number: Number, title: &str, by: Uuid) -> Result<()> {
    tell(tx, DELETED, &Happened { id, number, title, version: None, by }).await
}

/// # Errors
/// As the database says.
pub(crate) async fn digest(tx: &mut TenantTx, digest: &Digest) -> Result<()> {
    let Digest { day, zone, created, changed, deleted, .. } = digest;
    if created + changed + deleted == 0 {
        return Ok(());
    }
    let said = serde_json::json!({"day": day, "zone": zone, "created": created, "changed": changed, "deleted": deleted});
    tell(tx, DIGEST, &said).await
}

/// # Errors
/// As the database says.
pub(crate) async fn export(tx: &mut TenantTx, id: Uuid, documents: i64, bytes: u64) -> Result<()> {
    tell(tx, EXPORT, &serde_json::json!({"id": id, "documents": documents, "bytes": bytes})).await
}

async fn tell(tx: &mut TenantTx, topic: &str, body: &impl Serialize) -> Result<()> {
    publish(tx, topic, body).await.map(drop).map_err(Error::from)
}
