//! Configuration documents.

use std::sync::Arc;

use insula_catalog::document::{Canary, Document, DocumentVersion};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::plans::parse;
use crate::error::Error;

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
