//! News of an operation, pushed: in order, each once, also to a reader that was cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use insula_api::Client;
use insula_api::operation::{EventQuery, OperationEvents, OperationState};
use insula_control::Control;
use insula_control::fault::{Fault, Faults, Moment};
use insula_control::model::Scope;
use insula_core::{Isolation, Kind, OperationId};
use reqwest::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::house::{House, LONG, create};

/// The API of a control plane, served until dropped; its URL and a key that may read.
async fn serve(control: &Control) -> (String, String) {
    let key = control.create_api_key("tests", "reader", Scope::Read).await.expect("a key").secret;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = insula_control::rest::router(control.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, key)
}

/// Reads a stream to its end.
async fn read(client: &Client, id: OperationId, after: i64) -> Vec<OperationEvents> {
    let mut stream = client.operation_stream(id, after).await.expect("an answer").expect("a stream");
    let mut news = Vec::new();
    while let Some(next) = tokio::time::timeout(LONG, stream.next()).await.expect("it ends").expect("news") {
        news.push(next);
    }
    news
}

fn numbers(news: &[OperationEvents]) -> Vec<i64> {
    news.iter().flat_map(|n| n.events.iter().map(|e| e.seq)).collect()
}

/// Keeps a provision at its first step until somebody has seen that it was begun.
#[derive(Default)]
struct Unseen(AtomicBool);

impl Faults for Unseen {
    fn at(&self, kind: &str, step: &str, moment: Moment) -> Option<Fault> {
        let first = kind == "tenant.provision" && step == "cell" && moment == Moment::Before;
        (first && !self.0.load(Ordering::SeqCst)).then_some(Fault::Away)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_are_pushed_as_they_happen_and_gone_on_with_where_they_broke_off() {
    let mut house = House::start().await;
    let (url, key) = serve(&house.control).await;
    let client = Client::new(&url, &key).expect("a client");
    // Nobody works: the operation waits, and so does who watches it.
    house.stop().await;
    let created = house.control.create_tenant("test", create("acme", Isolation::Schema), None).await.expect("accepted");
    let id = created.operation.id;
    let mut waiting = client.operation_stream(id, 0).await.expect("an answer").expect("a stream");
    let first = waiting.next().await.expect("news").expect("some");
    assert!(!first.operation.state.ended());
    let unseen = Arc::new(Unseen::default());
    let faults = Arc::clone(&unseen);
    let mut worker = House::on(Arc::clone(&house.server), |config| config.faults = faults).await;
    let mut news = vec![first];
    while let Some(next) = tokio::time::timeout(LONG, waiting.next()).await.expect("it ends").expect("news") {
        unseen.0.store(true, Ordering::SeqCst);
        news.push(next);
    }
    assert_eq!(news.last().map(|n| n.operation.state), Some(OperationState::Done));
    assert!(news.len() > 2, "all at once is no progress: {news:?}");

    let polled = client.operation_events(id, &EventQuery::default()).await.expect("polled");
    let all: Vec<i64> = polled.events.iter().map(|e| e.seq).collect();
    assert_eq!(numbers(&news), all, "each event once, in order");
    // Cut off after any event: the rest comes, nothing twice.
    for (at, seq) in all.iter().enumerate().take(all.len() - 1) {
        assert_eq!(numbers(&read(&client, id, *seq).await), all[at + 1..]);
    }
    let last = *all.last().expect("events");
    assert!(client.operation_stream(id, last).await.expect("an answer").is_none(), "there is nothing to come back for");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_needs_a_key_says_what_is_wrong_and_ends_with_the_process() {
    let mut house = House::start().await;
    house.stop().await;
    let created = house.control.create_tenant("test", create("acme", Isolation::Schema), None).await.expect("accepted");
    let id = created.operation.id;
    let (url, key) = serve(&house.control).await;
    let path = format!("{url}/v1/operations/{id}/events");
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let get = |key: &str| http.get(&path).header("accept", "text/event-stream").bearer_auth(key);
    assert_eq!(get("ik_wrong").send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    let bad = get(&key).header("last-event-id", "seven").send().await.expect("an answer");
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(bad.text().await.expect("a problem").contains("Last-Event-ID"));
    let good = get(&key).send().await.expect("an answer");
    assert_eq!(good.headers()["content-type"], "text/event-stream");
    assert_eq!(good.headers()["cache-control"], "no-cache");
    drop(good);
    let nobody = Client::new(&url, &key).expect("a client").operation_stream(OperationId::new(), 0).await;
    assert_eq!(nobody.expect_err("nobody").kind(), Kind::NotFound);

    // The process ends: whoever watches is told at once, and not kept waiting.
    let end = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut config = house.control.config().clone();
    // With an engine that dies at its first step: the operation stays where it is.
    config.workers = 1;
    config.faults = crate::house::Planned::new(&[("create", Moment::Before, Fault::Crash)]);
    let process = tokio::spawn(insula_control::run(config, listener, end.clone().cancelled_owned()));
    let client = Client::new(&url, &key).expect("a client");
    let mut stream = client.operation_stream(id, 0).await.expect("an answer").expect("a stream");
    stream.next().await.expect("news").expect("some");
    end.cancel();
    let ended = async { while stream.next().await.is_ok_and(|news| news.is_some()) {} };
    let asked = std::time::Instant::now();
    tokio::time::timeout(LONG, ended).await.expect("the stream ends");
    // What the process does after that takes its time, and is no stream's.
    assert!(asked.elapsed() < std::time::Duration::from_secs(4), "a stream kept the process for {:?}", asked.elapsed());
    tokio::time::timeout(LONG, process).await.expect("the process ends").expect("no panic").expect("well");
}
