//! What becomes of one message.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::Message;
use futures_util::FutureExt as _;
use insula_catalog::{Catalog, Route};
use insula_core::context::Trace;
use insula_core::{TenantContext, TenantId, TenantState, scope};
use insula_data::Data;
use sqlx::Row;

use super::{ConsumerConfig, Event, EventError, Handler};
use crate::envelope::{Envelope, Unreadable};
use crate::nats::{DEAD_SUBJECT, EVENTS_SUBJECT, Nats, header_map};
use crate::topic::wants;

/// While the catalog does not know what the event's database knew.
const BEHIND: Duration = Duration::from_secs(1);
/// While a tenant may not work. Short enough to begin soon when it is resumed, long enough that thousands of its events are no burden until then.
const PAUSED: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(300);
/// Deleted tenants that are remembered.
const GONE: usize = 10_000;

/// What the server is told of a message.
pub(crate) enum Verdict {
    Ack,
    Later(Duration),
}

pub(crate) struct Desk {
    pub(crate) nats: Nats,
    data: Data,
    catalog: Catalog,
    pub(crate) config: ConsumerConfig,
    handler: Handler,
    /// Tenants that a fresh look at the catalog did not find. Ids are never given twice.
    gone: Mutex<HashSet<TenantId>>,
}

/// Whose line a message stands in: its subject's tenant, whatever it turns out to be.
pub(crate) fn whose(message: &Message) -> String {
    message.subject.strip_prefix(EVENTS_SUBJECT).and_then(|rest| rest.split('.').nth(1)).unwrap_or_default().to_owned()
}

impl Desk {
    pub(crate) fn new(nats: Nats, data: Data, catalog: Catalog, config: ConsumerConfig, handler: Handler) -> Self {
        Self { nats, data, catalog, config, handler, gone: Mutex::default() }
    }

    /// Handles a message, or finds out why not. A word for the metrics, and what the server is told.
    pub(crate) async fn judge(&self, message: &Message) -> (&'static str, Verdict) {
        let (envelope, body) = match read(message) {
            Ok(read) => read,
            Err(why) => return self.dead(message, &why.to_string(), "unreadable").await,
        };
        if !wants(&self.config.topics, &envelope.topic) {
            return ("unwanted", Verdict::Ack);
        }
        let route = match self.route(&envelope).await {
            Ok(route) => route,
            Err(waits) => return waits,
        };
        let tenant = TenantContext {
            tenant: route.id,
            no: route.no,
            slug: route.slug.clone(),
            plan: route.plan.name.clone(),
            principal: envelope.principal.as_deref().map(Arc::from),
            request_id: envelope.id.simple().to_string().into(),
            proof: None,
            trace: envelope.trace.as_deref().and_then(|parent| Trace::read(parent, None)).map(Arc::new),
        };
        let event = Event { envelope, tenant: tenant.clone(), body };
        let handling = scope::enter(tenant.clone(), self.handle(&event));
        let handled = AssertUnwindSafe(tokio::time::timeout(self.config.timeout, handling)).catch_unwind().await;
        let error = match handled {
            Ok(Ok(Ok(true))) => return ("handled", Verdict::Ack),
            Ok(Ok(Ok(false))) => return ("repeated", Verdict::Ack),
            Ok(Ok(Err(error))) => error,
            Ok(Err(_)) => EventError::Retry(format!("it took longer than {:?}", self.config.timeout)),
            Err(_) => EventError::Retry("its handler panicked".to_owned()),
        };
        match error {
            EventError::Later(reason) => {
                tracing::debug!(event = %event.envelope.id, reason, "an event waits");
                ("waits", Verdict::Later(BEHIND))
            }
            EventError::Dead(reason) => self.give_up(message, &event, &reason).await,
            EventError::Retry(reason) => self.failed(message, &event, &reason).await,
        }
    }

    /// The tenant's route, as new as the event.
    async fn route(&self, envelope: &Envelope) -> Result<Arc<Route>, (&'static str, Verdict)> {
        let known = |route: &Option<Arc<Route>>| route.as_ref().is_some_and(|route| route.placement.epoch >= envelope.epoch);
        let look = || self.catalog.by_id(envelope.tenant).map(|route| route.arc());
        if self.gone.lock().unwrap_or_else(PoisonError::into_inner).contains(&envelope.tenant) {
            return Err(("gone", Verdict::Ack));
        }
        let mut route = look();
        if !known(&route) {
            if self.catalog.refresh().await.is_err() {
                return Err(("waits", Verdict::Later(BEHIND)));
            }
            route = look();
        }
        let Some(found) = route.clone() else {
            tracing::info!(tenant = %envelope.tenant, event = %envelope.id, "an event of a tenant that is no more: not handled");
            let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            if gone.len() >= GONE {
                gone.clear();
            }
            gone.insert(envelope.tenant);
            return Err(("gone", Verdict::Ack));
        };
        if !known(&route) {
            // Its database has moved on, and the catalog is told of it in a moment.
            return Err(("waits", Verdict::Later(BEHIND)));
        }
        if found.state() != TenantState::Active {
            return Err(("waits", Verdict::Later(PAUSED)));
        }
        Ok(found)
    }

    /// In one transaction: whether it was handled before, and what the handler does. False when it was.
    async fn handle(&self, event: &Event) -> Result<bool, EventError> {
        let mut tx = self.data.begin(&event.tenant).await?;
        let row = sqlx::query("SELECT insula.event_new($1, $2)")
            .bind(&self.config.name)
            .bind(event.envelope.id)
            .fetch_one(&mut tx)
            .await?;
        if !row.try_get::<bool, _>(0)? {
            tx.rollback().await;
            return Ok(false);
        }
        match (self.handler)(event, &mut tx).await {
            Ok(()) => match tx.commit().await {
                Ok(()) => Ok(true),
                // It happened or not: the next delivery finds out.
                Err(insula_data::Error::CommitUnknown) => Err(EventError::Later("the commit's outcome is unknown".to_owned())),
                Err(error) => Err(error.into()),
            },
            Err(error) => {
                tx.rollback().await;
                Err(error)
            }
        }
    }

    /// Counts a failure where the tenant's data is; when that cannot be done, nothing is counted.
    async fn failed(&self, message: &Message, event: &Event, reason: &str) -> (&'static str, Verdict) {
        let counted = async {
            let mut tx = self.data.begin(&event.tenant).await?;
            let sql = "SELECT insula.event_failed($1, $2)";
            let row = sqlx::query(sql).bind(&self.config.name).bind(event.envelope.id).fetch_one(&mut tx).await?;
            let failures: i32 = row.try_get(0)?;
            tx.commit().await?;
            Ok::<_, insula_data::Error>(failures)
        };
        match counted.await {
            Ok(failures) if failures >= self.config.attempts => self.give_up(message, event, reason).await,
            Ok(failures) => {
                tracing::warn!(event = %event.envelope.id, failures, reason, consumer = self.config.name, "an event was not handled");
                let doublings = u32::try_from(failures - 1).unwrap_or(0).min(16);
                ("failed", Verdict::Later(self.config.pause.saturating_mul(1 << doublings).min(LONGEST)))
            }
            Err(_) => ("waits", Verdict::Later(BEHIND)),
        }
    }

    async fn give_up(&self, message: &Message, event: &Event, reason: &str) -> (&'static str, Verdict) {
        tracing::error!(event = %event.envelope.id, reason, consumer = self.config.name, "an event is a dead letter");
        self.dead(message, reason, "dead").await
    }

    /// Puts a message where people look, with the reason; only then is it acknowledged.
    async fn dead(&self, message: &Message, reason: &str, outcome: &'static str) -> (&'static str, Verdict) {
        let theirs = message.headers.iter().flat_map(|headers| headers.iter());
        let theirs = theirs.flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str().to_owned())));
        // Theirs would have the server drop ours as a repeat, or expect something of the other stream.
        let theirs = theirs.filter(|(name, _): &(&str, String)| !name.starts_with("Nats-"));
        let one_line = |text: &str| text.replace(|c: char| c.is_control(), " ");
        let ours = [
            ("Insula-Reason", one_line(reason)),
            ("Insula-Consumer", self.config.name.clone()),
            ("Insula-Subject", message.subject.to_string()),
        ];
        let Ok(headers) = header_map(theirs.chain(ours)) else { return ("waits", Verdict::Later(PAUSED)) };
        let subject = format!("{DEAD_SUBJECT}.{}", self.config.name);
        match self.nats.put(subject, headers, message.payload.to_vec()).await {
            Ok(()) => (outcome, Verdict::Ack),
            Err(error) => {
                tracing::warn!(?error, "a dead letter cannot be written; the event stays");
                ("waits", Verdict::Later(PAUSED))
            }
        }
    }
}

/// What is said of a message, and its body. Its subject must say the same.
fn read(message: &Message) -> Result<(Envelope, String), Unreadable> {
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    let headers = headers.flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str().as_bytes())));
    let envelope = Envelope::read(headers)?;
    if message.subject.as_str() != format!("{EVENTS_SUBJECT}.{}.{}", envelope.tenant, envelope.topic) {
        return Err(Unreadable::Elsewhere);
    }
    let body = std::str::from_utf8(&message.payload).map_err(|_| Unreadable::Body)?;
    serde_json::from_str::<serde::de::IgnoredAny>(body).map_err(|_| Unreadable::Body)?;
    Ok((envelope, body.to_owned()))
}
