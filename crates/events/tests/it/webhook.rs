//! Webhooks of a tenant: who is told, how a post looks, what becomes of a receiver that does not want it.

use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use insula_events::webhook::{self, Delivery, MOST, Outcome, Seal, Sender};
use insula_events::{Error, publish};
use insula_post::{Poster, Reach};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::house::{House, keys};

/// A receiver of posts, which answers as it is told.
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<(String, String)>>>,
    status: Arc<Mutex<u16>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/in?token=x", listener.local_addr().expect("an address"));
        let (got, status) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(200)));
        let (posts, answer) = (Arc::clone(&got), Arc::clone(&status));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = Vec::new();
                let (head, body) = loop {
                    let mut piece = [0; 4096];
                    let read = stream.read(&mut piece).await.unwrap_or(0);
                    text.extend_from_slice(&piece[..read]);
                    let whole = String::from_utf8_lossy(&text).into_owned();
                    if let Some((head, body)) = whole.split_once("\r\n\r\n") {
                        let length =
                            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                        if length.and_then(|n| n.parse().ok()) == Some(body.len()) {
                            break (head.to_owned(), body.to_owned());
                        }
                    }
                    assert!(read > 0, "a whole request");
                };
                posts.lock().expect("a lock").push((head, body));
                let status = *answer.lock().expect("a lock");
                let _ = stream.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
            }
        });
        Self { url, got, status }
    }

    fn answers(&self, status: u16) {
        *self.status.lock().expect("a lock") = status;
    }

    /// Heads and bodies, as they came.
    fn got(&self) -> Vec<(String, String)> {
        self.got.lock().expect("a lock").clone()
    }
}

fn value<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default()
}

async fn create(house: &House, no: i64, url: &str, topics: &[&str]) -> (Uuid, String) {
    let mut tx = house.begin(no).await;
    let seal = Seal { keys: &keys(), cell: &house.server.cell() };
    let created = webhook::create(&mut tx, seal, Reach::Private, url, topics).await.expect("created");
    tx.commit().await.expect("committed");
    created
}

fn sender(reach: Reach) -> Sender {
    Sender::new(Poster::new(reach, None).expect("a poster"), keys)
}

/// The jobs that wait, as a worker would be given them.
async fn deliveries(house: &House, no: i64) -> Vec<Delivery> {
    let sql = "DELETE FROM insula.job WHERE tenant_id = $1 AND kind = 'insula.webhook' AND lane = 'insula.webhook' RETURNING body::text, due";
    let mut bodies: Vec<(String, chrono::DateTime<chrono::Utc>)> =
        sqlx::query_as(sql).bind(no).fetch_all(&mut house.admin().await).await.expect("jobs");
    bodies.sort_by_key(|(_, due)| *due);
    bodies.iter().map(|(body, _)| serde_json::from_str(body).expect("a delivery")).collect()
}

async fn last(house: &House, no: i64, hook: Uuid) -> webhook::Webhook {
    let mut tx = house.begin(no).await;
    let list = webhook::list(&mut tx).await.expect("a list");
    list.into_iter().find(|webhook| webhook.id == hook).expect("it is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_an_event_is_told_once_signed_and_shown() {
    let house = House::new(2).await;
    let receiver = Receiver::start().await;
    let (hook, secret) = create(&house, 1, &receiver.url, &["document.*"]).await;
    create(&house, 1, "http://127.0.0.1:9/", &["other", "documents.*"]).await;
    create(&house, 2, "http://127.0.0.1:9/", &["*"]).await;
    // With the transaction, or not at all.
    let mut tx = house.begin(1).await;
    publish(&mut tx, "document.created", &json!({})).await.expect("published");
    tx.rollback().await;
    let body = json!({ "z": 1, "a": [1.50, "ö\u{0}"], "large": 12_345_678_901_234_567_890_u64 });
    let mut tx = house.begin(1).await;
    let id = publish(&mut tx, "document.created", &body).await.expect("published");
    tx.commit().await.expect("committed");
    let jobs = deliveries(&house, 1).await;
    assert_eq!(jobs.len(), 1, "one webhook of this tenant wants it");
    assert_eq!(deliveries(&house, 2).await.len(), 0);
    let told = sender(Reach::Private).deliver(&house.data, &house.tenant(1), &jobs[0]).await.expect("delivered");
    assert_eq!(told, Outcome::Taken);
    let got = receiver.got();
    let (head, sent) = &got[0];
    let posted: Value = serde_json::from_str(sent).expect("JSON");
    assert_eq!((got.len(), head.lines().next()), (1, Some("POST /in?token=x HTTP/1.1")));
    assert_eq!((value(head, "insula-event"), value(head, "insula-topic")), (id.to_string().as_str(), "document.created"));
    assert_eq!((&posted["data"], &posted["topic"], &posted["id"]), (&body, &json!("document.created"), &json!(id)));
    assert_eq!(posted["tenant"], json!(house.tenant(1).tenant));
    chrono::DateTime::parse_from_rfc3339(posted["at"].as_str().expect("a time")).expect("RFC 3339");
    // The receiver's own arithmetic.
    let signature = value(head, "insula-signature");
    let (time, tag) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("a signature");
    let signed = format!("{time}.{sent}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let ours: String = hmac::sign(&key, signed.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(ours, tag);
    let shown = last(&house, 1, hook).await;
    assert_eq!((shown.last_status, shown.last_error, shown.failures), (Some(200), None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_shown_and_tried_again_and_410_pauses() {
    let house = House::new(1).await;
    let receiver = Receiver::start().await;
    let (hook, _) = create(&house, 1, &receiver.url, &["*"]).await;
    for n in 0..3 {
        house.tell(1, "a", n).await;
    }
    let jobs = deliveries(&house, 1).await;
    let (sender, one) = (sender(Reach::Private), house.tenant(1));
    for (status, times) in [(500, 1), (302, 2), (404, 3)] {
        receiver.answers(status);
        let told = sender.deliver(&house.data, &one, &jobs[0]).await.expect("noted");
        assert_eq!(told, Outcome::Again(format!("status {status}")));
        let shown = last(&house, 1, hook).await;
        assert_eq!((shown.last_status, shown.failures), (Some(i32::from(status)), times));
    }
    receiver.answers(410);
    assert!(matches!(sender.deliver(&house.data, &one, &jobs[1]).await.expect("noted"), Outcome::Dropped(_)));
    let shown = last(&house, 1, hook).await;
    assert!(shown.paused_at.is_some() && shown.paused_why.as_deref() == Some("the receiver answered 410 Gone"));
    // Nothing is posted any more, not even what waits; and nothing more is enqueued.
    let before = receiver.got().len();
    assert_eq!(sender.deliver(&house.data, &one, &jobs[2]).await.expect("dropped"), Outcome::Dropped("the webhook is paused"));
    house.tell(1, "a", 4).await;
    assert_eq!((receiver.got().len(), deliveries(&house, 1).await.len()), (before, 0));
    // It goes on when the tenant says so, also with another secret.
    receiver.answers(204);
    let mut tx = house.begin(1).await;
    assert!(webhook::pause(&mut tx, hook, false).await.expect("goes on"));
    assert!(webhook::test(&mut tx, hook).await.expect("a test"));
    let seal = Seal { keys: &keys(), cell: &house.server.cell() };
    assert!(webhook::rotate(&mut tx, seal, hook).await.expect("another secret").is_some());
    tx.commit().await.expect("committed");
    let jobs = deliveries(&house, 1).await;
    assert_eq!(sender.deliver(&house.data, &one, &jobs[0]).await.expect("delivered"), Outcome::Taken);
    assert_eq!(receiver.got().last().map(|(head, _)| value(head, "insula-topic").to_owned()), Some("webhook.test".to_owned()));
    let mut tx = house.begin(1).await;
    assert!(webhook::remove(&mut tx, hook).await.expect("removed"));
    assert!(!webhook::remove(&mut tx, hook).await.expect("it is gone"));
    tx.commit().await.expect("committed");
    assert_eq!(sender.deliver(&house.data, &one, &jobs[0]).await.expect("dropped"), Outcome::Dropped("the webhook was removed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_addresses_are_not_posted_to_nor_taken_and_secrets_open_in_their_cell_alone() {
    let house = House::new(1).await;
    let receiver = Receiver::start().await;
    let seal = Seal { keys: &keys(), cell: &house.server.cell() };
    let mut tx = house.begin(1).await;
    for url in ["http://127.0.0.1/", "http://[::1]/", "ftp://x/", "http://169.254.169.254/", "https://u:p@x.example/", "x"] {
        let refused = webhook::create(&mut tx, seal, Reach::Public, url, &["*"]).await;
        assert!(matches!(refused, Err(Error::Webhook { field: "url", .. })), "{url}");
    }
    for topics in [&[][..], &["A"], &["*.a"], &["a", ""], &["*"; 51]] {
        let refused = webhook::create(&mut tx, seal, Reach::Public, "https://hooks.example/", topics).await;
        assert!(matches!(refused, Err(Error::Webhook { field: "topics", .. })), "{topics:?}");
    }
    tx.rollback().await;
    let (hook, _) = create(&house, 1, &receiver.url, &["*"]).await;
    house.tell(1, "a", 1).await;
    let jobs = deliveries(&house, 1).await;
    // Named when that was allowed; judged again when it is connected to.
    let told = sender(Reach::Public).deliver(&house.data, &house.tenant(1), &jobs[0]).await.expect("noted");
    assert_eq!(told, Outcome::Again("it leads to an address that webhooks may not reach".to_owned()));
    let other = || {
        let root = insula_core::RootKey::new(insula_core::keys::Secret::random().expect("randomness"));
        let main = "main".parse().expect("a name");
        insula_core::KeyRing::new([(root.cell(&main), main)].map(|(key, name)| (name, key)))
    };
    let stranger = Sender::new(Poster::new(Reach::Private, None).expect("a poster"), other);
    let told = stranger.deliver(&house.data, &house.tenant(1), &jobs[0]).await.expect("noted");
    assert!(matches!(told, Outcome::Again(why) if why.contains("secret")));
    assert_eq!(receiver.got().len(), 0);
    assert!(last(&house, 1, hook).await.last_error.is_some());
    let mut tx = house.begin(1).await;
    for _ in 1..MOST {
        webhook::create(&mut tx, seal, Reach::Private, &receiver.url, &["*"]).await.expect("created");
    }
    let full = webhook::create(&mut tx, seal, Reach::Private, &receiver.url, &["*"]).await;
    assert!(matches!(full, Err(Error::Full(MOST))));
}
