//! Each request is told of once, however it ends.

use std::collections::HashMap;

use insula_telemetry::Meter;
use tokio::net::TcpListener;

use crate::stage::{LONG, Wire, app, config, get, ok, start, status};

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_counted_once() {
    let large = "x".repeat(4 << 20);
    let app = app(move |request| match request.split(' ').nth(1).unwrap_or_default() {
        "/large" => ok(&large),
        "/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".to_owned(),
        _ => ok("ok"),
    })
    .await;
    // It takes connections, and says nothing on them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stage = start(config(), app.addr, silent.local_addr().unwrap()).await.with_neighbour().await;
    stage.unlimited("acme");
    stage.seen(|acme| acme.plan.name.as_str() == "gold").await;
    let (mut sent, mut bytes) = (0, 0);

    // Many at once, answered in one turn.
    let mut wire = Wire::connect(stage.addr).await;
    wire.send(&get("acme.localhost", "/").repeat(20)).await;
    for _ in 0..20 {
        assert_eq!(status(&wire.message().await.unwrap()), 200);
        (sent, bytes) = (sent + 1, bytes + 2);
    }
    // One after the other, of every kind.
    let post = "POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 3\r\n\r\nabc";
    for (ask, length) in [
        (&get("acme.localhost", "/large"), 4 << 20),
        (&get("acme.localhost", "/chunked"), 2),
        (&post.to_owned(), 2),
        (&get("acme.localhost", "/"), 2),
    ] {
        assert_eq!(status(&wire.ask(ask).await), 200);
        (sent, bytes) = (sent + 1, bytes + length);
    }
    // Their clients go: before an answer, and in the middle of one.
    let mut gone = Wire::connect(stage.addr).await;
    gone.send(&get("globex.localhost", "/")).await;
    let _asked = silent.accept().await.unwrap();
    drop(gone);
    let mut gone = Wire::connect(stage.addr).await;
    gone.send(&get("neighbour.localhost", "/large")).await;
    gone.stream.readable().await.unwrap();
    drop(gone);
    let http2 = reqwest::Client::builder().http2_prior_knowledge().resolve("acme.localhost", stage.addr).build().unwrap();
    let answer = http2.get(format!("http://acme.localhost:{}/", stage.addr.port())).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok");
    (sent, bytes) = (sent + 1, bytes + 2);
    drop((wire, http2));

    stage.shutdown.trigger();
    tokio::time::timeout(LONG, stage.running).await.unwrap().unwrap().unwrap();
    let counted = stage.senses.usage().drain();
    let of = |meter| -> HashMap<_, _> { counted.iter().map(|(no, amounts)| (no.get(), amounts.get(meter))).collect() };
    assert_eq!(of(Meter::Requests), HashMap::from([(1, sent), (2, 1), (3, 1)]));
    assert_eq!(of(Meter::BytesOut)[&1], bytes);
}
