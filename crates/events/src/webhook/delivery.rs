//! One post of one event to one webhook: what a job of kind [`KIND`] does.

use insula_core::{Clock as _, KeyRing, SystemClock, TenantContext};
use insula_data::Data;
use insula_post::{HEADER_EVENT, HEADER_SIGNATURE, HEADER_TOPIC, Poster, sign};
use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::Row;
use uuid::Uuid;

use super::sealed_for;
use crate::error::Error;

/// The kind of the jobs, and the name of their lane.
pub const KIND: &str = "insula.webhook";
/// The receiver says that there is nothing at this address, and never will be (RFC 9110).
const GONE: u16 = 410;

/// A job's body, as `insula.publish()` writes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Delivery {
    webhook: Uuid,
    event: Uuid,
    topic: String,
    at: String,
    data: Box<RawValue>,
}

/// What is posted.
#[derive(Serialize)]
struct Posted<'a> {
    id: Uuid,
    topic: &'a str,
    tenant: String,
    at: &'a str,
    data: &'a RawValue,
}

/// How a delivery went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Taken,
    /// Nobody wants it any more.
    Dropped(&'static str),
    /// It was not taken; the reason is for people.
    Again(String),
}

/// What posts to webhooks.
pub struct Sender {
    poster: Poster,
    keys: Box<dyn Fn() -> KeyRing + Send + Sync>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("poster", &self.poster).finish_non_exhaustive()
    }
}

/// Where a webhook leads, and its sealed secret.
struct Target {
    url: String,
    sealed: Vec<u8>,
    sealed_in: String,
    paused: bool,
}

impl Sender {
    /// Posts by `poster`; `keys` gives those that this process has now.
    pub fn new(poster: Poster, keys: impl Fn() -> KeyRing + Send + Sync + 'static) -> Self {
        Self { poster, keys: Box::new(keys) }
    }

    /// Posts once, and notes how it went where the tenant sees it. No transaction is open meanwhile.
    ///
    /// # Errors
    /// When the tenant's database does not let us look or note.
    pub async fn deliver(&self, data: &Data, tenant: &TenantContext, delivery: &Delivery) -> Result<Outcome, Error> {
        let outcome = self.attempt(data, tenant, delivery).await?;
        let name = match &outcome {
            Outcome::Taken => "taken",
            Outcome::Dropped(_) => "dropped",
            Outcome::Again(_) => "failed",
        };
        counter!("insula_webhook_posts_total", "outcome" => name).increment(1);
        Ok(outcome)
    }

    async fn attempt(&self, data: &Data, tenant: &TenantContext, delivery: &Delivery) -> Result<Outcome, Error> {
        let Some(target) = target(data, tenant, delivery.webhook).await? else {
            return Ok(Outcome::Dropped("the webhook was removed"));
        };
        if target.paused {
            return Ok(Outcome::Dropped("the webhook is paused"));
        }
        let secret = match self.secret(tenant, delivery.webhook, &target) {
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(%error, webhook = %delivery.webhook, "a webhook's secret cannot be opened");
                let why = "its secret cannot be opened here: give it another one".to_owned();
                note(data, tenant, delivery.webhook, None, Some(&why), None).await?;
                return Ok(Outcome::Again(why));
            }
        };
        let posted = Posted {
            id: delivery.event,
            topic: &delivery.topic,
            tenant: tenant.tenant.to_string(),
            at: &delivery.at,
            data: &delivery.data,
        };
        let body = serde_json::to_string(&posted).map_err(|source| Error::Body { topic: delivery.topic.clone(), source })?;
        let id = delivery.event.to_string();
        let signature = sign(&secret, SystemClock.unix_seconds(), &body);
        let headers =
            [(HEADER_EVENT, id.as_str()), (HEADER_TOPIC, delivery.topic.as_str()), (HEADER_SIGNATURE, signature.as_str())];
        let status = self.poster.post(&target.url, &headers, &body).await;
        let (status, error, pause) = match status {
            Ok(status @ 200..=299) => (Some(status), None, None),
            Ok(status @ GONE) => (Some(status), Some(format!("status {status}")), Some("the receiver answered 410 Gone")),
            Ok(status) => (Some(status), Some(format!("status {status}")), None),
            Err(failure) => (None, Some(failure.to_string()), None),
        };
        note(data, tenant, delivery.webhook, status, error.as_deref(), pause).await?;
        Ok(match (error, pause) {
            (None, _) => Outcome::Taken,
            (Some(_), Some(why)) => Outcome::Dropped(why),
            (Some(error), None) => Outcome::Again(error),
        })
    }

    fn secret(&self, tenant: &TenantContext, webhook: Uuid, target: &Target) -> Result<String, Error> {
        let sealed = insula_core::keys::KeyError::Sealed;
        let cell = target.sealed_in.parse().map_err(|_| sealed.clone())?;
        let key = (self.keys)().cell(&cell)?.webhook_key();
        let secret = key.open(&sealed_for(tenant.tenant, webhook), &target.sealed)?;
        Ok(String::from_utf8(secret).map_err(|_| sealed)?)
    }
}

async fn target(data: &Data, tenant: &TenantContext, webhook: Uuid) -> Result<Option<Target>, Error> {
    let mut tx = data.begin(tenant).await?;
    let sql = "SELECT url, sealed, sealed_in, paused FROM insula.webhook_target($1)";
    let row = sqlx::query(sql).bind(webhook).fetch_optional(&mut tx).await?;
    tx.commit().await?;
    let read = |row: sqlx::postgres::PgRow| {
        Ok(Target { url: row.try_get(0)?, sealed: row.try_get(1)?, sealed_in: row.try_get(2)?, paused: row.try_get(3)? })
    };
    row.map(read).transpose()
}

async fn note(
    data: &Data,
    tenant: &TenantContext,
    webhook: Uuid,
    status: Option<u16>,
    error: Option<&str>,
    pause: Option<&str>,
) -> Result<(), Error> {
    let mut tx = data.begin(tenant).await?;
    sqlx::query("SELECT insula.webhook_told($1, $2, $3, $4)")
        .bind(webhook)
        .bind(status.map(i32::from))
        .bind(error)
        .bind(pause)
        .execute(&mut tx)
        .await?;
    tx.commit().await?;
    Ok(())
}
