//! A real NATS server of a test's own, and a bus that only writes down what it is given.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use insula_events::{Envelope, Nats, NatsConfig, SendError, Sink};
use insula_testkit::TestNats;

pub(crate) struct Bus(TestNats);

impl Bus {
    pub(crate) fn start() -> Self {
        Self(TestNats::start())
    }

    /// With more lines in its configuration.
    pub(crate) fn with(settings: &str) -> Self {
        Self(TestNats::with(settings))
    }

    /// Not running yet.
    pub(crate) fn absent() -> Self {
        Self(TestNats::absent())
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill();
    }

    pub(crate) fn revive(&mut self) {
        self.0.revive();
    }

    pub(crate) const fn runs(&self) -> bool {
        self.0.runs()
    }

    pub(crate) fn config(&self) -> NatsConfig {
        NatsConfig { url: self.0.url(), ..NatsConfig::default() }
    }

    pub(crate) async fn nats(&self) -> Nats {
        Nats::connect(&self.config()).await.expect("settings that make sense")
    }

    /// A client that knows nothing of us.
    pub(crate) async fn client(&self) -> jetstream::Context {
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        jetstream::new(options.connect(self.config().url).await.expect("connected"))
    }

    /// The next `count` messages of a stream, from its beginning.
    pub(crate) async fn read(&self, stream: &str, count: usize) -> Vec<jetstream::Message> {
        let context = self.client().await;
        let reading = async {
            let stream = loop {
                match context.get_stream(stream).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            let consumer = stream.create_consumer(pull::Config::default()).await.expect("a consumer");
            let mut messages = consumer.messages().await.expect("messages");
            let mut read = Vec::new();
            while read.len() < count {
                let message = messages.next().await.expect("no end").expect("a message");
                message.ack().await.expect("acknowledged");
                read.push(message);
            }
            read
        };
        tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap_or_else(|_| panic!("{count} messages in {stream}"))
    }

    /// How many messages a stream has.
    pub(crate) async fn held(&self, stream: &str) -> u64 {
        let context = self.client().await;
        match context.get_stream(stream).await {
            Ok(mut stream) => stream.info().await.expect("information").state.messages,
            Err(_) => 0,
        }
    }
}

/// A header's only value.
pub(crate) fn header(message: &jetstream::Message, name: &str) -> String {
    let values: Vec<_> =
        message.headers.iter().flat_map(|headers| headers.get_all(name)).map(|value| value.as_str().to_owned()).collect();
    assert!(values.len() <= 1, "{name}: {values:?}");
    values.into_iter().next().unwrap_or_default()
}

/// `{"n": …}`.
pub(crate) fn number(body: &[u8]) -> i64 {
    serde_json::from_slice::<serde_json::Value>(body).expect("JSON")["n"].as_i64().expect("a number")
}

/// Writes down what it is given: by tenant, in the order that it came. Now and then it does not take it, or takes it and does not say so.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) lines: Mutex<HashMap<String, Vec<i64>>>,
    /// One in so many fails, by turns before and after it was written down.
    pub(crate) fails: Option<u32>,
    count: std::sync::atomic::AtomicU32,
}

impl Book {
    pub(crate) fn failing(one_in: u32) -> Arc<Self> {
        Arc::new(Self { fails: Some(one_in), ..Self::default() })
    }

    /// What came from a tenant, without what came again.
    pub(crate) fn firsts(&self, tenant: impl ToString) -> Vec<i64> {
        let mut firsts = Vec::new();
        for n in self.line(tenant) {
            if !firsts.contains(&n) {
                firsts.push(n);
            }
        }
        firsts
    }

    pub(crate) fn line(&self, tenant: impl ToString) -> Vec<i64> {
        self.lines.lock().expect("a lock").get(&tenant.to_string()).cloned().unwrap_or_default()
    }
}

impl Sink for Book {
    fn is_up(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, envelope: &'a Envelope, body: &'a str) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            let turn = self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let fails = self.fails.is_some_and(|one_in| turn % one_in == one_in - 1);
            tokio::task::yield_now().await;
            if fails && turn.is_multiple_of(2) {
                return Err(SendError::Later("not now".to_owned()));
            }
            let n = number(body.as_bytes());
            self.lines.lock().expect("a lock").entry(envelope.tenant.to_string()).or_default().push(n);
            if fails { Err(SendError::Later("the answer was lost".to_owned())) } else { Ok(()) }
        })
    }
}
