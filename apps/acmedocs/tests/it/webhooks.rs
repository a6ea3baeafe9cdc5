//! Webhooks: a real receiver, told of real changes by a real worker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use insula_testkit::Isolation;
use serde_json::{Value, json};

use crate::exports::worker;
use crate::house::{House, Person};

/// What came, and what to answer.
#[derive(Clone, Default)]
struct Receiver {
    posts: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    answer: Arc<Mutex<StatusCode>>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    receiver.posts.lock().unwrap_or_else(PoisonError::into_inner).push((headers, body));
    *receiver.answer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Answers at an address of this machine.
    async fn open() -> (Self, String) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/in", listener.local_addr().expect("bound"));
        let app = Router::new().route("/in", post(receive)).with_state(receiver.clone());
        tokio::spawn(axum::serve(listener, app).into_future());
        (receiver, url)
    }

    fn topics(&self) -> Vec<String> {
        let posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        posts.iter().map(|(headers, _)| headers["insula-topic"].to_str().expect("text").to_owned()).collect()
    }

    async fn until(&self, count: usize) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while self.topics().len() < count {
            assert!(tokio::time::Instant::now() < deadline, "only {:?} came", self.topics());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until the first webhook is as wanted.
async fn until(person: &Person, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let listed = person.get("/api/webhooks").await.json["items"][0].clone();
        if wanted(&listed) {
            return listed;
        }
        assert!(tokio::time::Instant::now() < deadline, "it stays as it is: {listed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_change_is_told_to_the_workspace_s_own_addresses() {
    let house = House::open().await;
    let tenant = house.tenant("hooked", Isolation::Database).await;
    let ann = house.person("hooked", "admin").await;
    let (receiver, url) = Receiver::open().await;
    let added = ann.post("/api/webhooks", json!({"url": url, "topics": ["document.*"]})).await;
    assert_eq!(added.status, 201, "{}", added.text);
    let secret = added.json["secret"].as_str().expect("a secret").to_owned();
    let id = added.json["id"].as_str().expect("an id").to_owned();
    let worker = worker(&house, &tenant);

    let document = ann.write("Told", "x", &[]).await;
    assert_eq!(ann.patch(&format!("/api/documents/{document}"), json!({"title": "Told again"})).await.status, 200);
    // Nothing changes, so there is nothing to tell; what is refused is not told either.
    assert_eq!(ann.patch(&format!("/api/documents/{document}"), json!({"title": "Told again"})).await.status, 200);
    ann.patch(&format!("/api/documents/{document}"), json!({"title": ""})).await.must_name("title");
    assert_eq!(ann.delete(&format!("/api/documents/{document}")).await.status, 204);
    receiver.until(3).await;
    let mut topics = receiver.topics();
    topics.sort_unstable();
    assert_eq!(topics, ["document.created", "document.deleted", "document.updated"]);
    for (headers, body) in receiver.posts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let said: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(said["data"]["id"], document.as_str(), "{body}");
        assert_eq!(said["data"]["number"], "DOC-000001");
        let signature = headers["insula-signature"].to_str().expect("text");
        let (time, proof) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("a signature");
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, format!("{time}.{body}").as_bytes());
        assert_eq!(proof, tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    let listed = until(&ann, |webhook| webhook["last_status"] == 200).await;
    assert!(!listed.to_string().contains(&secret));

    assert_eq!(ann.post(&format!("/api/webhooks/{id}/test"), json!({})).await.status, 204);
    receiver.until(4).await;
    // Gone: it is paused, and the list says why.
    *receiver.answer.lock().unwrap_or_else(PoisonError::into_inner) = StatusCode::GONE;
    ann.write("Gone", "x", &[]).await;
    let paused = until(&ann, |webhook| !webhook["paused_at"].is_null()).await;
    assert_eq!(paused["last_status"], 410);
    assert_eq!(ann.patch(&format!("/api/webhooks/{id}"), json!({"paused": false})).await.status, 204);
    assert_eq!(ann.delete(&format!("/api/webhooks/{id}")).await.status, 204);
    ann.delete(&format!("/api/webhooks/{id}")).await.must_be_problem(404);
    worker.stop().await;
}

#[tokio::test]
async fn digests_and_exports_are_told() {
    let house = House::open().await;
    let tenant = house.tenant("hooked-jobs", Isolation::Database).await;
    let ann = house.person("hooked-jobs", "admin").await;
    let (receiver, url) = Receiver::open().await;
    ann.write("Yesterday's", "x", &[]).await;
    assert_eq!(ann.post("/test/age", json!(24)).await.status, 200);
    assert_eq!(ann.post("/api/webhooks", json!({"url": url})).await.status, 201);
    let worker = worker(&house, &tenant);
    assert_eq!(ann.post("/test/digest", json!(null)).await.json, 1);
    assert_eq!(ann.post("/api/exports", json!({"format": "zip"})).await.status, 202);
    receiver.until(2).await;
    let mut topics = receiver.topics();
    topics.sort_unstable();
    assert_eq!(topics, ["digest.ready", "export.ready"]);
    worker.stop().await;
}

#[tokio::test]
async fn what_is_no_address_is_refused() {
    let house = House::open().await;
    let ann = house.admin("hooked-badly", Isolation::Row).await;
    for url in ["", "x", "ftp://hooks.example/", "javascript:alert(1)", "https://user:pass@hooks.example/", "https://"] {
        ann.post("/api/webhooks", json!({"url": url})).await.must_name("url");
    }
    for topics in [json!(["Document"]), json!([""]), json!(["a b"]), json!([])] {
        ann.post("/api/webhooks", json!({"url": "https://hooks.example/in", "topics": topics})).await.must_name("topics");
    }
    for n in 0..20 {
        let added = ann.post("/api/webhooks", json!({"url": format!("https://hooks.example/{n}")})).await;
        assert_eq!(added.status, 201, "{}", added.text);
    }
    ann.post("/api/webhooks", json!({"url": "https://hooks.example/more"})).await.must_be_problem(409);
}
