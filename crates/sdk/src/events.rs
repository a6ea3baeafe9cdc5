//! Events: what happened to a tenant's data, told to others. See the guide, `docs/guides/events.md`.
//!
//! Publish in the transaction of the change: `events::publish(&mut tx, "document.created", &body)`. Webhooks of the tenant's own
//! ([`crate::webhooks`]) are told by the application's worker; a bus is, when `INSULA_NATS_URL` names one, by the role `worker`, too.

pub use insula_events::{
    BODY_BYTES, Envelope, Error, EventId, Relay, RelayConfig, SendError, Sink, Unreadable, header, kafka, publish, publish_all,
};
#[cfg(feature = "nats")]
pub use insula_events::{Consumer, ConsumerConfig, Event, EventError, Nats, NatsConfig};

use crate::handle::Insula;

/// Why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No address.
    #[error("INSULA_NATS_URL is not set: events go nowhere but to webhooks")]
    NoBus,
    /// It makes no sense of the settings.
    #[error("INSULA_NATS_URL, INSULA_NATS_CREDENTIALS or INSULA_NATS_CA is wrong: {0}")]
    Settings(Error),
    /// A consumer's name or topics.
    #[error(transparent)]
    Consumer(Error),
}

impl Insula {
    /// Starts what sends events to the bus, from the outboxes of all tenants that this process has keys for. The role `worker`
    /// ([`crate::work`]) has one already.
    ///
    /// # Errors
    /// [`BusError`]. A bus or a database that is away is tried again and again.
    #[cfg(feature = "nats")]
    pub async fn relay(&self) -> Result<Relay, BusError> {
        Ok(self.relay_to(std::sync::Arc::new(self.nats().await?)))
    }

    /// As [`Insula::relay`], to a bus of your own.
    #[must_use]
    pub fn relay_to(&self, bus: std::sync::Arc<dyn Sink>) -> Relay {
        let insula = self.clone();
        let config = RelayConfig { authorities: self.cell_authorities(), ..RelayConfig::default() };
        Relay::start(bus, self.catalog().clone(), move || insula.keys(), config)
    }

    /// What the role `worker` has: a relay when the settings name a bus.
    pub(crate) async fn relay_if_any(&self) -> Result<Option<Relay>, BusError> {
        #[cfg(feature = "nats")]
        return match self.relay().await {
            Ok(relay) => Ok(Some(relay)),
            Err(BusError::NoBus) => Ok(None),
            Err(error) => Err(error),
        };
        #[cfg(not(feature = "nats"))]
        Ok(None)
    }

    /// A connection to the bus that the settings name.
    ///
    /// # Errors
    /// [`BusError`]. A server that is away is none: the connection comes when it is there.
    #[cfg(feature = "nats")]
    pub async fn nats(&self) -> Result<Nats, BusError> {
        let bus = self.config().and_then(|config| config.telling.bus.as_ref()).ok_or(BusError::NoBus)?;
        let config = NatsConfig {
            url: bus.url.clone(),
            credentials: bus.credentials.clone(),
            authorities: bus.authorities.clone(),
            replicas: bus.replicas,
        };
        Nats::connect(&config).await.map_err(BusError::Settings)
    }

    /// Starts a consumer in this process. The handler writes in the transaction that it is given, which is of the event's tenant and commits when
    /// it returns well: `|event, tx| Box::pin(async move { … })`. It is called once for each event that it handled well, however often the bus
    /// delivers it.
    ///
    /// # Errors
    /// [`BusError`].
    #[cfg(feature = "nats")]
    pub async fn consume<F>(&self, config: ConsumerConfig, handler: F) -> Result<Consumer, BusError>
    where
        F: for<'t> Fn(&'t Event, &'t mut crate::TenantTx) -> futures_util::future::BoxFuture<'t, Result<(), EventError>>
            + Send
            + Sync
            + 'static,
    {
        let nats = self.nats().await?;
        Consumer::start(nats, self.data().clone(), self.catalog().clone(), config, handler).map_err(BusError::Consumer)
    }
}
