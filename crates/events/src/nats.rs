//! NATS JetStream: where events go, and where consumers get them.
//!
//! Subjects are `insula.ev.<tenant>.<topic>`, so that a consumer of one tenant's events, or a server's permissions, need look at nothing else. Two
//! streams: `INSULA_EVENTS` keeps them for a week; `INSULA_DEAD` keeps what no consumer could make sense of. They are made when they are missing, and left
//! as they are when somebody made them otherwise. The server drops an event that it is sent twice within two minutes; consumers drop the rest.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::{HeaderMap, HeaderValue};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::envelope::Envelope;
use crate::error::Error;
use crate::sink::{SendError, Sink};

/// The stream of events.
pub const EVENTS_STREAM: &str = "INSULA_EVENTS";
/// The stream of what is not understood.
pub const DEAD_STREAM: &str = "INSULA_DEAD";
pub(crate) const EVENTS_SUBJECT: &str = "insula.ev";
pub(crate) const DEAD_SUBJECT: &str = "insula.dead";
/// How long an event is kept for consumers: less than they remember what they have seen.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
const DEAD_KEPT: Duration = Duration::from_secs(28 * 86_400);
const TWICE: Duration = Duration::from_secs(120);
/// How long the server may take to say that it has an event.
const PATIENCE: Duration = Duration::from_secs(5);
/// What headers and subject take of the server's most for a message, at the most.
const AROUND: usize = 8_192;

/// Where the bus is.
#[derive(Clone, Default)]
pub struct NatsConfig {
    /// `nats://[USER:PASSWORD@]HOST:PORT`, or `tls://…`; several with commas between. A secret.
    pub url: String,
    /// A file with credentials, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// Certificate authorities of the server: a PEM file.
    pub authorities: Option<PathBuf>,
    /// Servers of a cluster that keep each event; 0 is one.
    pub replicas: usize,
}

impl std::fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsConfig").field("url", &"***").field("replicas", &self.replicas).finish_non_exhaustive()
    }
}

/// A connection to NATS, which comes back by itself. Cheap to clone.
#[derive(Clone)]
pub struct Nats {
    client: async_nats::Client,
    context: Context,
    replicas: usize,
}

impl std::fmt::Debug for Nats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nats").field("state", &self.client.connection_state()).finish_non_exhaustive()
    }
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::Bus(error.to_string())
}

impl Nats {
    /// Connects, now or whenever the server is there.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub async fn connect(config: &NatsConfig) -> Result<Self, Error> {
        let mut options = match &config.credentials {
            Some(file) => async_nats::ConnectOptions::with_credentials_file(file).await.map_err(fault)?,
            None => async_nats::ConnectOptions::new(),
        };
        options =
            options.name("insula").retry_on_initial_connect().connection_timeout(PATIENCE).event_callback(|event| async move {
                tracing::info!(%event, "NATS");
            });
        if let Some(file) = &config.authorities {
            options = options.add_root_certificates(file.clone());
        }
        let servers = config.url.split(',').map(|url| url.trim().parse::<async_nats::ServerAddr>());
        let servers = servers.collect::<Result<Vec<_>, _>>().map_err(|_| fault("the address cannot be read"))?;
        let client = options.connect(servers).await.map_err(fault)?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(PATIENCE);
        Ok(Self { client, context, replicas: config.replicas.max(1) })
    }

    /// Whether it is connected now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    pub(crate) const fn context(&self) -> &Context {
        &self.context
    }

    /// Makes the streams that are missing.
    ///
    /// # Errors
    /// When the server does not let us, or is away.
    pub async fn prepare(&self) -> Result<(), Error> {
        let stream = |name: &str, subject: &str, kept| Config {
            name: name.to_owned(),
            subjects: vec![format!("{subject}.>")],
            max_age: kept,
            duplicate_window: TWICE,
            storage: StorageType::File,
            num_replicas: self.replicas,
            ..Config::default()
        };
        for config in [stream(EVENTS_STREAM, EVENTS_SUBJECT, KEPT), stream(DEAD_STREAM, DEAD_SUBJECT, DEAD_KEPT)] {
            self.context.get_or_create_stream(config).await.map_err(fault)?;
        }
        Ok(())
    }

    /// Hands a message over, and waits until the server has it for good.
    pub(crate) async fn put(&self, subject: String, headers: HeaderMap, body: Vec<u8>) -> Result<(), SendError> {
        let most = self.client.server_info().max_payload;
        if most > 0 && body.len() + AROUND > most {
            return Err(SendError::Never(format!("its body has {} bytes, and the server takes messages of {most}", body.len())));
        }
        let body = bytes::Bytes::from(body);
        let sending = async || self.context.publish_with_headers(subject.clone(), headers.clone(), body.clone()).await?.await;
        let mut sent = tokio::time::timeout(PATIENCE, sending()).await;
        if matches!(&sent, Ok(Err(error)) if error.kind() == PublishErrorKind::StreamNotFound) {
            // The first of all, or somebody removed the stream.
            self.prepare().await.map_err(|error| SendError::Later(error.to_string()))?;
            sent = tokio::time::timeout(PATIENCE, sending()).await;
        }
        match sent {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let text = source_text(&error);
                // JetStream's error 10054: the stream has a bound of its own.
                let too_large = text.contains("10054") || text.contains("message size exceeds");
                Err(if too_large { SendError::Never(text) } else { SendError::Later(text) })
            }
            Err(_) => Err(SendError::Later("the server did not answer in time".to_owned())),
        }
    }
}

fn source_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Values as the server takes them; an envelope's always are.
pub(crate) fn header_map<'a>(headers: impl IntoIterator<Item = (&'a str, String)>) -> Result<HeaderMap, SendError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let value: HeaderValue = value.parse().map_err(|_| SendError::Never(format!("the header {name} cannot be written")))?;
        map.append(name, value);
    }
    Ok(map)
}

impl Sink for Nats {
    fn is_up(&self) -> bool {
        self.is_connected()
    }

    fn send<'a>(&'a self, envelope: &'a Envelope, body: &'a str) -> BoxFuture<'a, Result<(), SendError>> {
        async move {
            let mut headers = envelope.headers();
            headers.push(("Nats-Msg-Id", format!("{}.{}", envelope.tenant, envelope.id)));
            let subject = format!("{EVENTS_SUBJECT}.{}.{}", envelope.tenant, envelope.topic);
            self.put(subject, header_map(headers)?, body.as_bytes().to_vec()).await
        }
        .boxed()
    }
}
