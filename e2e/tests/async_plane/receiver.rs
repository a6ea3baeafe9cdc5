//! A receiver of webhooks on this machine, which can keep those who post waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use insula_e2e::client::User;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::stage::until;

/// What came, and whether answers are given.
#[derive(Clone)]
pub(crate) struct Receiver {
    posts: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    open: watch::Sender<bool>,
    url: String,
}

/// What a webhook is told, once it has proven to be from us.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Told {
    pub(crate) event: String,
    pub(crate) topic: String,
    /// Of what it tells of: a document, an export, or a day.
    pub(crate) of: String,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    receiver.posts().push((headers, body));
    // It is there as long as the state that this holds.
    let _ = receiver.open.subscribe().wait_for(|open| *open).await;
    StatusCode::OK
}

impl Receiver {
    pub(crate) async fn open() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/in", listener.local_addr()?);
        let receiver = Self { posts: Arc::default(), open: watch::Sender::new(true), url };
        let app = Router::new().route("/in", post(receive)).with_state(receiver.clone());
        tokio::spawn(axum::serve(listener, app).into_future());
        Ok(receiver)
    }

    /// The tenant's webhook, made through the application; its secret.
    pub(crate) async fn hook(&self, user: &User, topics: &[&str]) -> Result<String> {
        let (status, added) = user.json(Method::POST, "/api/webhooks", Some(&json!({"url": self.url, "topics": topics}))).await?;
        ensure!(status == StatusCode::CREATED, "{status} {added}");
        Ok(added["secret"].as_str().context("no secret")?.to_owned())
    }

    /// From here on nobody is answered.
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }

    fn posts(&self) -> MutexGuard<'_, Vec<(HeaderMap, String)>> {
        self.posts.lock().expect("whole")
    }

    pub(crate) fn count(&self) -> usize {
        self.posts().len()
    }

    /// All that came, each once, however often it was posted; in the order of coming.
    pub(crate) fn told(&self, secret: &str) -> Result<Vec<Told>> {
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let mut all = Vec::new();
        for (headers, body) in self.posts().iter() {
            let told = verified(headers, body, secret)?;
            match seen.get(&told.event) {
                Some(before) => ensure!(before == body, "one event, two bodies: {before} {body}"),
                None => {
                    seen.insert(told.event.clone(), body.clone());
                    all.push(told);
                }
            }
        }
        Ok(all)
    }

    /// Waits for so many different events; fails when more have come.
    pub(crate) async fn events(&self, secret: &str, count: usize) -> Result<Vec<Told>> {
        let told = until(&format!("{count} events"), async || {
            let told = self.told(secret)?;
            Ok((told.len() >= count).then_some(told))
        })
        .await
        .with_context(|| format!("came: {:?}", self.told(secret)))?;
        ensure!(told.len() == count, "{count} were expected: {told:?}");
        Ok(told)
    }
}

/// As a receiver does it: HMAC-SHA256 over time and body.
fn verified(headers: &HeaderMap, body: &str, secret: &str) -> Result<Told> {
    let text = |name: &str| anyhow::Ok(headers.get(name).with_context(|| format!("no {name}"))?.to_str()?.to_owned());
    let signature = text("insula-signature")?;
    let (time, proof) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).context("no signature")?;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, format!("{time}.{body}").as_bytes());
    let expected: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(proof == expected, "a post that is not signed as it should be: {body}");
    let said: Value = serde_json::from_str(body)?;
    let of = ["id", "day"].into_iter().find_map(|name| said["data"][name].as_str()).context("of what?")?;
    Ok(Told { event: text("insula-event")?, topic: text("insula-topic")?, of: of.to_owned() })
}

/// The things that events of this topic tell of.
pub(crate) fn of(told: &[Told], topic: &str) -> BTreeSet<String> {
    told.iter().filter(|told| told.topic == topic).map(|told| told.of.clone()).collect()
}
