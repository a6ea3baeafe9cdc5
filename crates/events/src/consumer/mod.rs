//! A consumer: handles events, each in its tenant's scope and transaction, each once.
//!
//! For: an application's reactions to events. Not for: what it does with them.
//! Always: without a tenant the handler is never called: what has none, or cannot be read, goes to the dead-letter stream with the reason; what
//! the handler writes and that it has handled the event are one transaction, opened where the tenant lives now, so neither a repeat nor a move
//! of the tenant makes it happen twice; tenants take turns, and of one tenant's events one is handled at a time.
//!
//! | the tenant | then |
//! | --- | --- |
//! | is at an epoch that this process does not know yet | the catalog is asked; until it knows, the event waits |
//! | is suspended, moving, or its database is away | the event waits |
//! | is deleted, or was never there | acknowledged and counted, never handled |

mod handling;
mod turns;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use insula_catalog::Catalog;
use insula_core::TenantContext;
use insula_data::{Data, TenantTx};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::envelope::Envelope;
use crate::error::Error;
use crate::nats::{EVENTS_STREAM, EVENTS_SUBJECT, Nats};
use crate::topic::is_pattern;
use handling::{Desk, Verdict};
use turns::Turns;

/// How a consumer works.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Its name: what it has handled is remembered under it, and its processes share the work. 1 to 50 letters, digits, `_` and `-`.
    pub name: String,
    /// What it is told of: topics, `document.*`, or `*`.
    pub topics: Vec<String>,
    /// Events at work at once.
    pub concurrency: usize,
    /// Times that the handler may fail with an event before it is a dead letter.
    pub attempts: i32,
    /// How long the handler may take.
    pub timeout: Duration,
    /// Between two tries; grows with each.
    pub pause: Duration,
}

impl ConsumerConfig {
    /// A consumer of these topics.
    #[must_use]
    pub fn new(name: &str, topics: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            concurrency: 8,
            attempts: 10,
            timeout: Duration::from_secs(30),
            pause: Duration::from_secs(2),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if self.name.is_empty() || self.name.len() > 50 || !self.name.bytes().all(plain) {
            return Err(Error::Bus(format!("{:?} is no name of a consumer: letters, digits, _ and -", self.name)));
        }
        match self.topics.iter().find(|topic| !is_pattern(topic)) {
            Some(topic) => Err(Error::Topic(topic.clone())),
            None if self.topics.is_empty() => Err(Error::Topic(String::new())),
            None => Ok(()),
        }
    }

    /// What the server is asked for: one pattern it can tell itself; of several, this process picks its own.
    fn subject(&self) -> String {
        match &self.topics[..] {
            [one] if one == "*" => format!("{EVENTS_SUBJECT}.>"),
            [one] => match one.strip_suffix(".*") {
                Some(prefix) => format!("{EVENTS_SUBJECT}.*.{prefix}.>"),
                None => format!("{EVENTS_SUBJECT}.*.{one}"),
            },
            _ => format!("{EVENTS_SUBJECT}.>"),
        }
    }

    /// After this the server gives an event to somebody else.
    fn ack_wait(&self) -> Duration {
        self.timeout + Duration::from_secs(15)
    }

    fn waiting(&self) -> usize {
        self.concurrency.max(1) * 8
    }
}

/// An event, as a handler is given it.
#[derive(Clone, Debug)]
pub struct Event {
    /// What is said of it.
    pub envelope: Envelope,
    /// Whose it is, as this process knows the tenant now.
    pub tenant: TenantContext,
    /// The body, JSON.
    pub body: String,
}

impl Event {
    /// The body.
    ///
    /// # Errors
    /// [`EventError::Dead`] when it is something else: trying again would not change it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, EventError> {
        serde_json::from_str(&self.body).map_err(|error| EventError::Dead(format!("its body does not decode: {error}")))
    }
}

/// How a handler says that it did not go well. What it wrote is rolled back. The text goes to the dead letter; keep secrets out of it.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Try again later, as long as attempts are left.
    #[error("{0}")]
    Retry(String),
    /// Trying again is of no use: a dead letter at once.
    #[error("{0}")]
    Dead(String),
    /// Not its time, and not counted: the tenant, or its database, is not to be had just now.
    #[error("{0}")]
    Later(String),
}

impl From<insula_data::Error> for EventError {
    fn from(error: insula_data::Error) -> Self {
        use insula_core::Kind;
        match error.kind() {
            Kind::Suspended | Kind::Moved | Kind::Unavailable | Kind::Limited | Kind::NoTenant => Self::Later(error.to_string()),
            _ => Self::Retry(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for EventError {
    fn from(error: sqlx::Error) -> Self {
        insula_data::Error::from(error).into()
    }
}

impl From<crate::Error> for EventError {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Data(error) => error.into(),
            crate::Error::Sql(error) => error.into(),
            other => Self::Retry(other.to_string()),
        }
    }
}

pub(crate) type Handler = Arc<dyn for<'t> Fn(&'t Event, &'t mut TenantTx) -> BoxFuture<'t, Result<(), EventError>> + Send + Sync>;

/// A consumer at work. Dropped, it stops at once: what it was at is given to another, or to it when it is back.
pub struct Consumer {
    stop: watch::Sender<bool>,
    consuming: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

impl Consumer {
    /// Starts. The handler writes in the transaction that it is given, which commits when it returns well: `|event, tx| Box::pin(async move { … })`.
    /// The server may be away: then it begins when that is back.
    ///
    /// # Errors
    /// When name or topics make no sense.
    pub fn start<F>(nats: Nats, data: Data, catalog: Catalog, config: ConsumerConfig, handler: F) -> Result<Self, Error>
    where
        F: for<'t> Fn(&'t Event, &'t mut TenantTx) -> BoxFuture<'t, Result<(), EventError>> + Send + Sync + 'static,
    {
        config.check()?;
        let (stop, mut stopping) = watch::channel(false);
        let desk = Arc::new(Desk::new(nats, data, catalog, config, Arc::new(handler)));
        let consuming = tokio::spawn(async move {
            let mut pause = Duration::from_millis(200);
            while !*stopping.borrow() {
                let began = Instant::now();
                if let Err(error) = consume(&desk, &mut stopping).await {
                    tracing::warn!(%error, consumer = desk.config.name, "cannot consume events; trying again");
                }
                if began.elapsed() > Duration::from_secs(30) {
                    pause = Duration::from_millis(200);
                }
                let _ = tokio::time::timeout(pause, stopping.wait_for(|stop| *stop)).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
        });
        Ok(Self { stop, consuming })
    }

    /// Takes nothing more, and ends when what is at work has ended.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.consuming).await;
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.consuming.abort();
    }
}

/// A message, and when it came.
pub(crate) struct Delivered {
    pub(crate) message: jetstream::Message,
    pub(crate) at: Instant,
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::Bus(error.to_string())
}

/// Consumes until told to stop, or until the server is lost.
async fn consume(desk: &Arc<Desk>, stopping: &mut watch::Receiver<bool>) -> Result<(), Error> {
    let config = &desk.config;
    desk.nats.prepare().await?;
    let stream = desk.nats.context().get_stream(EVENTS_STREAM).await.map_err(fault)?;
    let wanted = pull::Config {
        durable_name: Some(config.name.clone()),
        filter_subject: config.subject(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: config.ack_wait(),
        // Those of suspended tenants are pending as long as that lasts, and must not be in the way of others'. What bounds the work is how much is asked for.
        max_ack_pending: -1,
        // How often an event is tried is counted where its tenant's data is.
        max_deliver: -1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(wanted).await.map_err(fault)?;
    let mut messages = consumer.stream().max_messages_per_batch(config.waiting()).messages().await.map_err(fault)?;
    let mut turns = Turns::new(config.concurrency.max(1));
    let mut at_work = tokio::task::JoinSet::new();
    let ended = loop {
        while let Some((whose, delivered)) = turns.next() {
            let desk = desk.clone();
            at_work.spawn(async move {
                work(&desk, delivered).await;
                whose
            });
        }
        tokio::select! {
            message = messages.next(), if turns.waiting() < config.waiting() => match message {
                Some(Ok(message)) => {
                    let whose = handling::whose(&message);
                    turns.put(whose, Delivered { message, at: Instant::now() });
                }
                Some(Err(error)) => break Err(fault(error)),
                None => break Err(fault("the server ended the delivery")),
            },
            Some(ended) = at_work.join_next() => match ended {
                Ok(whose) => turns.ended(whose),
                // A panic in the machinery itself: begin anew, and what was under way is delivered again.
                Err(error) => break Err(fault(error)),
            },
            _ = stopping.wait_for(|stop| *stop) => break Ok(()),
        }
    };
    // What did not begin goes to another at once.
    for delivered in turns.rest() {
        let _ = delivered.message.ack_with(AckKind::Nak(None)).await;
    }
    while at_work.join_next().await.is_some() {}
    ended
}

/// One message, from its headers to its acknowledgement.
async fn work(desk: &Desk, delivered: Delivered) {
    // The server gives it to somebody else soon, or has already.
    if delivered.at.elapsed() > Duration::from_secs(10) {
        let _ = delivered.message.ack_with(AckKind::Nak(None)).await;
        return;
    }
    let (outcome, verdict) = desk.judge(&delivered.message).await;
    metrics::counter!("insula_events_consumed_total", "consumer" => desk.config.name.clone(), "outcome" => outcome).increment(1);
    let told = match verdict {
        Verdict::Ack => delivered.message.ack().await,
        Verdict::Later(pause) => delivered.message.ack_with(AckKind::Nak(Some(pause))).await,
    };
    if let Err(error) = told {
        // It comes again, and is known then.
        tracing::debug!(%error, "an event cannot be acknowledged");
    }
}
