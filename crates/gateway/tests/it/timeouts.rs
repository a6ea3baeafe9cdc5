//! Applications that fall silent: whatever is waited for, the wait has an end, and what it held comes back.

use std::time::Duration;

use insula_catalog::fake;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::stage::{LONG, Wire, config, get, ok, one_place, start, status};

/// Where a test plays the application itself.
async fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// The next connection of the gateway, and the request on it.
async fn asked(listener: &TcpListener) -> (Wire, String) {
    let accepted = tokio::time::timeout(LONG, listener.accept()).await.expect("a connection in time");
    let mut wire = Wire::new(accepted.unwrap().0);
    let request = wire.message().await.expect("a request");
    (wire, request)
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: acme.localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_never_answered_ends_and_gives_its_place_back() {
    let (listener, addr) = listen().await;
    let mut config = one_place(0);
    // Long enough to look meanwhile, and to answer in the end.
    config.timeouts.response_ms = 2_000;
    let stage = start(config, addr, addr).await;
    let mut client = Wire::connect(stage.addr).await;
    client.send(UPGRADE).await;
    let (mut upstream, request) = asked(&listener).await;
    assert!(request.contains("upgrade: websocket\r\n"), "{request}");
    // Its place is taken meanwhile.
    let mut other = Wire::connect(stage.addr).await;
    assert_eq!(status(&other.ask(&get("acme.localhost", "/")).await), 503);
    let answer = client.message().await.expect("an answer");
    assert!(status(&answer) == 504 && answer.contains("application/problem+json"), "{answer}");
    assert!(upstream.is_closed().await, "the connection to the application is open");
    other.send(&get("acme.localhost", "/")).await;
    let (mut upstream, _) = asked(&listener).await;
    upstream.send(&ok("served")).await;
    assert!(other.message().await.unwrap().ends_with("served"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_504_and_the_place_is_free() {
    let (listener, addr) = listen().await;
    let mut config = one_place(0);
    // Long enough to answer in the end.
    config.timeouts.response_ms = 1_500;
    let stage = start(config, addr, addr).await;
    let mut client = Wire::connect(stage.addr).await;
    for _ in 0..6 {
        // More often than a circuit allows failures: that one tenant waits in vain says nothing of the cell.
        client.send(&get("acme.localhost", "/silent")).await;
        let (mut upstream, _) = asked(&listener).await;
        assert_eq!(status(&client.message().await.expect("an answer")), 504);
        assert!(upstream.is_closed().await);
    }
    client.send(&get("acme.localhost", "/")).await;
    let (mut upstream, _) = asked(&listener).await;
    upstream.send(&ok("served")).await;
    assert!(client.message().await.unwrap().ends_with("served"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_has_a_time_of_its_own() {
    let (listener, addr) = listen().await;
    let stage = start(config(), addr, addr).await;
    stage.source.change(|content| {
        let mut tenant = fake::tenant("hasty", 9, "bronze", "main").unwrap();
        tenant.limits = serde_json::from_str(r#"{"request_timeout_ms": 200}"#).unwrap();
        content.put_tenant(tenant);
    });
    let (mut hasty, mut patient) = (Wire::connect(stage.addr).await, Wire::connect(stage.addr).await);
    patient.send(&get("acme.localhost", "/")).await;
    let (mut of_patient, _) = asked(&listener).await;
    hasty.send(&get("hasty.localhost", "/")).await;
    let (mut of_hasty, _) = asked(&listener).await;
    // The gateway's own bound is beyond this test's patience.
    assert_eq!(status(&hasty.message().await.expect("an answer")), 504);
    assert!(of_hasty.is_closed().await);
    of_patient.send(&ok("in the end")).await;
    assert!(patient.message().await.unwrap().ends_with("in the end"));
}

/// A listener whose queue is full: who connects hears nothing, for two minutes by the kernel's own patience.
async fn deaf() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut queued = Vec::new();
    loop {
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        match tokio::time::timeout(Duration::from_millis(500), connecting).await {
            Ok(stream) => queued.push(stream.unwrap()),
            Err(_) => return (listener, queued),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_has_an_end() {
    let (deaf, _queued) = deaf().await;
    let addr = deaf.local_addr().unwrap();
    let mut config = config();
    config.timeouts.connect_ms = 200;
    let stage = start(config, addr, addr).await;
    let mut client = Wire::connect(stage.addr).await;
    for request in [&get("acme.localhost", "/"), UPGRADE] {
        let answer = client.ask(request).await;
        assert!(status(&answer) == 503 && answer.contains("retry-after"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_broken_off() {
    let (listener, addr) = listen().await;
    let mut config = one_place(0);
    config.timeouts.stream_ms = 300;
    let stage = start(config, addr, addr).await;
    let mut client = Wire::connect(stage.addr).await;
    client.send(&get("acme.localhost", "/")).await;
    let (mut upstream, _) = asked(&listener).await;
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n").await;
    let mut seen = Vec::new();
    let end = tokio::time::timeout(LONG, client.stream.read_to_end(&mut seen)).await.expect("an end");
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("begun") && !text.ends_with("0\r\n\r\n"), "{end:?}: {text}");
    assert!(upstream.is_closed().await);
    let mut client = Wire::connect(stage.addr).await;
    client.send(&get("acme.localhost", "/")).await;
    let (mut upstream, _) = asked(&listener).await;
    upstream.send(&ok("served")).await;
    assert!(client.message().await.unwrap().ends_with("served"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_in_which_nothing_moves_is_closed_on_both_sides() {
    let (listener, addr) = listen().await;
    let mut config = config();
    config.timeouts.tunnel_ms = 2_000;
    let stage = start(config, addr, addr).await;
    let mut client = Wire::connect(stage.addr).await;
    client.send(UPGRADE).await;
    let (mut upstream, _) = asked(&listener).await;
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert!(client.message().await.unwrap().starts_with("HTTP/1.1 101"));
    // Whatever moves, in either direction, keeps it open.
    for n in 0..30 {
        let (from, to) = if n % 2 == 0 { (&mut client, &mut upstream) } else { (&mut upstream, &mut client) };
        from.stream.write_all(b"x").await.unwrap();
        let mut byte = [0];
        tokio::time::timeout(LONG, to.stream.read_exact(&mut byte)).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(client.is_closed().await && upstream.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_to_an_application_is_closed_before_the_application_does() {
    let (listener, addr) = listen().await;
    let mut config = config();
    config.timeouts.upstream_idle_ms = 300;
    let stage = start(config, addr, addr).await;
    let mut client = Wire::connect(stage.addr).await;
    client.send(&get("acme.localhost", "/")).await;
    let (mut upstream, _) = asked(&listener).await;
    upstream.send(&ok("served")).await;
    assert_eq!(status(&client.message().await.unwrap()), 200);
    assert!(upstream.is_closed().await);
    // The client's own is another matter.
    client.send(&get("acme.localhost", "/")).await;
    let (mut upstream, _) = asked(&listener).await;
    upstream.send(&ok("again")).await;
    assert!(client.message().await.unwrap().ends_with("again"));
}

/// A client that takes next to nothing, connected to this address.
async fn greedless(addr: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(addr).await.unwrap()
}

/// How much the kernels' buffers take for such a client.
async fn taken_for_a_greedless_client() -> usize {
    let (listener, addr) = listen().await;
    let _client = greedless(addr).await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut taken = 0;
    // It takes a moment until the first of it has arrived.
    while tokio::time::timeout(Duration::from_millis(200), stream.writable()).await.is_ok() {
        taken += stream.try_write(&[0; 4 << 10]).unwrap_or(0);
    }
    taken
}

/// As long as its answer is on its way, an upgrade is its connection's affair.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_whose_answer_nobody_takes_ends() {
    let taken = taken_for_a_greedless_client().await;
    let (listener, addr) = listen().await;
    let mut config = config();
    config.timeouts.send_ms = 500;
    let stage = start(config, addr, addr).await;
    let mut client = Wire::new(greedless(stage.addr).await);
    client.send(&(get("acme.localhost", "/") + UPGRADE)).await;
    // Nearly as much as is taken, then more than the rest.
    let (mut upstream, _) = asked(&listener).await;
    upstream.send(&ok(&"y".repeat(taken - (200 << 10)))).await;
    let (mut upstream, _) = asked(&listener).await;
    let fields: String = (0..95).map(|n| format!("x-{n}: {}\r\n", "y".repeat(4 << 10))).collect();
    upstream
        .send(&format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n{fields}\r\n"))
        .await;
    assert!(upstream.is_closed().await, "the connection to the application is open");
}
