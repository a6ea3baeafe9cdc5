//! Webhooks of a tenant: addresses of its own customers' that are told of its events ([`crate::events`]), signed, tried again until they answer.
//!
//! ```
//! # use insula::{Result, Tenant, webhooks};
//! async fn add(tenant: Tenant) -> Result<String> {
//!     let mut tx = tenant.begin().await?;
//!     let created = webhooks::create(&tenant, &mut tx, "https://hooks.example/in", &["document.*"]).await?;
//!     tx.commit().await?;
//!     Ok(created.secret) // shown once
//! }
//! ```
//!
//! What a post looks like, and how a receiver knows it, is in the guide, `docs/guides/events.md`. They are posted by the application's worker.

use std::sync::Arc;
use std::time::Duration;

use insula_core::Kind;
use insula_data::TenantTx;
use insula_events::webhook::{self, Delivery, Outcome, Seal, Sender};
use insula_jobs::{JobContext, JobError, Jobs, KindRules};
use insula_post::{Poster, Reach};
use serde::Serialize;
use uuid::Uuid;

pub use insula_events::webhook::{MOST, Webhook};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::handle::Insula;
use crate::tenant::Tenant;

/// A webhook that was just made, or given another secret.
#[derive(Clone, Serialize)]
pub struct Created {
    /// Its id.
    pub id: Uuid,
    /// What signs the posts to it. Nobody is shown it again.
    pub secret: String,
}

impl std::fmt::Debug for Created {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Created").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Adds an address. It is told of what is published once this transaction has committed.
///
/// # Errors
/// A field's error in words for the client when the address or a topic makes no sense; `Conflict` when the tenant has [`MOST`] already.
pub async fn create<S: AsRef<str>>(tenant: &Tenant, tx: &mut TenantTx, url: &str, topics: &[S]) -> Result<Created> {
    let insula = tenant.insula();
    let keys = insula.keys();
    let seal = Seal { keys: &keys, cell: tenant.cell() };
    let (id, secret) = webhook::create(tx, seal, reach(insula.config()), url, topics).await.map_err(spoken)?;
    Ok(Created { id, secret })
}

/// All of the tenant's, the oldest first, with how the last post to each went.
///
/// # Errors
/// As the transaction.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Webhook>> {
    webhook::list(tx).await.map_err(spoken)
}

/// Takes one away. False when there is none.
///
/// # Errors
/// As the transaction.
pub async fn remove(tx: &mut TenantTx, id: Uuid) -> Result<bool> {
    webhook::remove(tx, id).await.map_err(spoken)
}

/// Pauses one, or lets it go on. What is published meanwhile is not posted to it. False when there is none.
///
/// # Errors
/// As the transaction.
pub async fn pause(tx: &mut TenantTx, id: Uuid, paused: bool) -> Result<bool> {
    webhook::pause(tx, id, paused).await.map_err(spoken)
}

/// Gives one another secret. `None` when there is none.
///
/// # Errors
/// As the transaction.
pub async fn rotate(tenant: &Tenant, tx: &mut TenantTx, id: Uuid) -> Result<Option<Created>> {
    let keys = tenant.insula().keys();
    let secret = webhook::rotate(tx, Seal { keys: &keys, cell: tenant.cell() }, id).await.map_err(spoken)?;
    Ok(secret.map(|secret| Created { id, secret }))
}

/// Posts an event `webhook.test` to one. False when there is none, or it is paused.
///
/// # Errors
/// As the transaction.
pub async fn test(tx: &mut TenantTx, id: Uuid) -> Result<bool> {
    webhook::test(tx, id).await.map_err(spoken)
}

/// What is about the client's own input, in words for it.
fn spoken(error: insula_events::Error) -> Error {
    use insula_events::Error as E;
    match error {
        E::Webhook { field, expected } => Error::field(field, expected),
        E::Data(error) => error.into(),
        E::Sql(error) => error.into(),
        other => match other.public() {
            Some(text) => Error::public(other.kind(), text),
            None if other.kind() == Kind::Internal => Error::internal(other),
            None => other.into(),
        },
    }
}

fn reach(config: Option<&Config>) -> Reach {
    if config.is_some_and(|config| config.telling.webhook_private) { Reach::Private } else { Reach::Public }
}

/// The application's kinds of jobs, and the one that posts to webhooks.
pub(crate) fn with_deliveries(jobs: Jobs, insula: &Insula) -> std::result::Result<Jobs, insula_post::Error> {
    let config = insula.config();
    let authorities = config.and_then(|config| config.telling.webhook_authorities.as_deref());
    let poster = Poster::new(reach(config), authorities)?;
    let keys = insula.clone();
    let sender = Arc::new(Sender::new(poster, move || keys.keys()));
    // A line of its own: what a receiver makes wait is no other work of the tenant's.
    let rules = KindRules { attempts: 15, timeout: Duration::from_secs(30), cap: Some(4), ..KindRules::default() };
    Ok(jobs.with_handler(webhook::KIND, rules, move |delivery: Delivery, context: JobContext| {
        let sender = sender.clone();
        async move { deliver(&sender, &delivery, &context).await }
    }))
}

async fn deliver(sender: &Sender, delivery: &Delivery, context: &JobContext) -> std::result::Result<(), JobError> {
    use insula_events::Error as E;
    match sender.deliver(context.data(), context.tenant(), delivery).await {
        Ok(Outcome::Taken | Outcome::Dropped(_)) => Ok(()),
        Ok(Outcome::Again(why)) => Err(JobError::Retry(why)),
        Err(E::Data(error)) => Err(error.into()),
        Err(E::Sql(error)) => Err(error.into()),
        Err(error) => Err(JobError::retry(error)),
    }
}
