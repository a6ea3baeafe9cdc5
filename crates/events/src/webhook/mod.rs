//! Webhooks of a tenant: addresses of its own that are told of its events.
//!
//! `insula.publish()` gives each of them a job for each event that it wants, in the same transaction; [`Sender`] is what the job does. Always: a
//! secret is shown once, when it is made, and lies sealed from then on; what is read of a receiver's answer is its status.

mod delivery;

use chrono::{DateTime, Utc};
use insula_core::keys::Secret;
use insula_core::{CellName, KeyRing, TenantId};
use insula_data::TenantTx;
use insula_post::{Reach, check_url};
use serde::Serialize;
use sqlx::Row;
use uuid::Uuid;

pub use delivery::{Delivery, KIND, Outcome, Sender};

use crate::error::Error;
use crate::topic::is_pattern;

/// Webhooks that a tenant may have.
pub const MOST: usize = 20;

/// An address that is told of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// Its identity.
    pub id: Uuid,
    /// The address.
    pub url: String,
    /// What it is told of: topics, `document.*`, or `*`.
    pub topics: Vec<String>,
    /// Since when it is there.
    pub created_at: DateTime<Utc>,
    /// Since when nothing is posted to it.
    pub paused_at: Option<DateTime<Utc>>,
    /// Why, when it was not the tenant's wish.
    pub paused_why: Option<String>,
    /// When something was last posted to it.
    pub last_at: Option<DateTime<Utc>>,
    /// The status that came then.
    pub last_status: Option<i32>,
    /// What was wrong then.
    pub last_error: Option<String>,
    /// Posts in a row that were not taken.
    pub failures: i32,
}

/// What seals the secrets of a tenant's webhooks: the keys, and the cell that the tenant lives in.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// The keys of this process.
    pub keys: &'a KeyRing,
    /// The tenant's cell.
    pub cell: &'a CellName,
}

impl Seal<'_> {
    fn seal(&self, tenant: TenantId, webhook: Uuid, secret: &str) -> Result<Vec<u8>, Error> {
        Ok(self.keys.cell(self.cell)?.webhook_key().seal(&sealed_for(tenant, webhook), secret.as_bytes())?)
    }
}

/// What a sealed secret is good for, and for nothing else.
fn sealed_for(tenant: TenantId, webhook: Uuid) -> String {
    format!("{tenant} {webhook}")
}

/// Adds one. Answers its id and its secret, which nobody is shown again.
///
/// # Errors
/// [`Error::Webhook`] for an address or topic that makes no sense, [`Error::Full`]; else as the transaction.
pub async fn create<S: AsRef<str>>(
    tx: &mut TenantTx,
    seal: Seal<'_>,
    reach: Reach,
    url: &str,
    topics: &[S],
) -> Result<(Uuid, String), Error> {
    check_url(reach, url).map_err(|expected| Error::Webhook { field: "url", expected })?;
    let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
    if topics.is_empty() || topics.len() > 50 || !topics.iter().all(|topic| is_pattern(topic)) {
        return Err(Error::Webhook {
            field: "topics",
            expected: "one to fifty topics such as document.created, document.* or *",
        });
    }
    let (id, secret) = (Uuid::now_v7(), Secret::random()?.to_hex());
    let sealed = seal.seal(tx.context().tenant, id, &secret)?;
    let row = sqlx::query("SELECT insula.webhook_create($1, $2, $3, $4, $5)")
        .bind(id)
        .bind(url)
        .bind(&topics)
        .bind(sealed)
        .bind(seal.cell.as_str())
        .fetch_one(tx)
        .await?;
    if row.try_get(0)? { Ok((id, secret)) } else { Err(Error::Full(MOST)) }
}

/// All of the tenant's, the oldest first.
///
/// # Errors
/// As the transaction.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Webhook>, Error> {
    let sql = "SELECT id, url, topics, created_at, paused_at, paused_why, last_at, last_status, last_error, failures FROM insula.webhook_list()";
    let rows = sqlx::query(sql).fetch_all(tx).await?;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Webhook {
            id: row.try_get(0)?,
            url: row.try_get(1)?,
            topics: row.try_get(2)?,
            created_at: row.try_get(3)?,
            paused_at: row.try_get(4)?,
            paused_why: row.try_get(5)?,
            last_at: row.try_get(6)?,
            last_status: row.try_get(7)?,
            last_error: row.try_get(8)?,
            failures: row.try_get(9)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Takes one away; what waits for it is not posted any more. False when there is none.
///
/// # Errors
/// As the transaction.
pub async fn remove(tx: &mut TenantTx, webhook: Uuid) -> Result<bool, Error> {
    Ok(sqlx::query("SELECT insula.webhook_remove($1)").bind(webhook).fetch_one(tx).await?.try_get(0)?)
}

/// Pauses one, or lets it go on. What is published while it is paused is never posted to it. False when there is none.
///
/// # Errors
/// As the transaction.
pub async fn pause(tx: &mut TenantTx, webhook: Uuid, paused: bool) -> Result<bool, Error> {
    Ok(sqlx::query("SELECT insula.webhook_pause($1, $2)").bind(webhook).bind(paused).fetch_one(tx).await?.try_get(0)?)
}

/// Gives one another secret: the one before signs nothing from now on. `None` when there is none.
///
/// # Errors
/// As the transaction.
pub async fn rotate(tx: &mut TenantTx, seal: Seal<'_>, webhook: Uuid) -> Result<Option<String>, Error> {
    let secret = Secret::random()?.to_hex();
    let sealed = seal.seal(tx.context().tenant, webhook, &secret)?;
    let sql = "SELECT insula.webhook_reseal($1, $2, $3)";
    let row = sqlx::query(sql).bind(webhook).bind(sealed).bind(seal.cell.as_str()).fetch_one(tx).await?;
    Ok(row.try_get::<bool, _>(0)?.then_some(secret))
}

/// Posts an event `webhook.test` to one, whatever it is told of otherwise. False when there is none, or it is paused.
///
/// # Errors
/// As the transaction.
pub async fn test(tx: &mut TenantTx, webhook: Uuid) -> Result<bool, Error> {
    let sql = "SELECT insula.webhook_send($1, $2, 'webhook.test', '{}')";
    Ok(sqlx::query(sql).bind(webhook).bind(Uuid::now_v7()).fetch_one(tx).await?.try_get(0)?)
}
