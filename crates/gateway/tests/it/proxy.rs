//! Requests find their way, and bytes come through as they are.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use insula_core::TenantState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stage::{LONG, Wire, app, config, echo, get, nobody, ok, start, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_its_tenants_cell_and_nowhere_else() {
    let (main, second) = (echo("main").await, echo("second").await);
    let stage = start(config(), main.addr, second.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    for (host, cell) in [("acme.localhost", "main"), ("globex.localhost", "second"), ("ACME.localhost.:80", "main")] {
        let answer = client.ask(&get(host, "/x?y=1")).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(answer.contains(&format!("\r\n\r\n{cell}\nGET /x?y=1 HTTP/1.1\r\nhost: {host}\r\n")), "{answer}");
    }
    assert_eq!(status(&client.ask(&get("nobody.localhost", "/")).await), 404);
    assert_eq!((main.connections.load(Ordering::SeqCst), second.connections.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_side_has_an_application_of_its_own() {
    let (main, console) = (echo("main").await, echo("console").await);
    let mut with = config();
    with.resolve.host_side = vec!["console.localhost".into()];
    let without = with.clone();
    with.upstream.host_side_url = Some(format!("http://{}", console.addr));
    let stage = start(with, main.addr, main.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    // No tenant's rate holds it, and no hint of a client makes it somebody's.
    for _ in 0..300 {
        let ask = "GET /x HTTP/1.1\r\nhost: console.localhost\r\ninsula-tenant-context: forged\r\n\r\n";
        let answer = client.ask(ask).await;
        assert!(status(&answer) == 200 && answer.contains("\r\n\r\nconsole\nGET /x HTTP/1.1\r\n"), "{answer}");
        assert!(!answer.contains("context"), "{answer}");
    }
    assert!(client.ask(&get("acme.localhost", "/")).await.contains("\r\n\r\nmain\n"));
    let stage = start(without, main.addr, main.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    assert_eq!(status(&client.ask(&get("console.localhost", "/")).await), 503);
    assert_eq!(console.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_tenants_and_cells_without_an_answer_are_told_apart() {
    let main = echo("main").await;
    let gone = nobody();
    let stage = start(config(), main.addr, gone.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    let answer = client.ask(&get("globex.localhost", "/")).await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("application/problem+json") && answer.contains("retry-after"), "{answer}");
    stage.source.change(|content| {
        let mut tenant = insula_catalog::fake::tenant("halted", 3, "bronze", "main").unwrap();
        tenant.state = TenantState::Suspended;
        content.put_tenant(tenant);
    });
    // Known at once: an unknown host makes the catalog catch up.
    assert_eq!(status(&client.ask(&get("halted.localhost", "/")).await), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_answered_in_words_and_a_program_in_json() {
    let main = echo("main").await;
    let stage = start(config(), main.addr, main.addr).await;
    stage.source.change(|content| {
        let mut asleep = insula_catalog::fake::tenant("asleep", 3, "bronze", "main").unwrap();
        asleep.state = TenantState::Suspended;
        content.put_tenant(asleep);
    });
    let mut client = Wire::connect(stage.addr).await;
    for (host, code, title) in
        [("nobody.localhost", 404, "There is no such tenant"), ("asleep.localhost", 403, "This tenant is suspended")]
    {
        let browser = format!("GET / HTTP/1.1\r\nhost: {host}\r\naccept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\r\n");
        let answer = client.ask(&browser).await;
        assert_eq!(status(&answer), code);
        assert!(answer.contains("content-type: text/html") && answer.contains(&format!("<h1>{title}</h1>")), "{answer}");
        let answer = client.ask(&get(host, "/")).await;
        assert!(status(&answer) == code && answer.contains("content-type: application/problem+json"), "{answer}");
    }
    // What the application answers is its own, whoever asks.
    let answer = client.ask("GET / HTTP/1.1\r\nhost: acme.localhost\r\naccept: text/html\r\n\r\n").await;
    assert!(status(&answer) == 200 && answer.contains("main\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let (main, second) = (echo("main").await, echo("second").await);
    let stage = start(config(), main.addr, second.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    let body = "x".repeat(1 << 20);
    let sized = format!("POST /up HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = client.ask(&sized).await;
    assert!(answer.ends_with(&body) && status(&answer) == 200);
    let chunked =
        "POST /up HTTP/1.1\r\nhost: acme.localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let answer = client.ask(chunked).await;
    assert!(answer.contains("transfer-encoding: chunked\r\n"), "{answer}");
    assert!(answer.contains("hello") && answer.contains("world"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_comes_piece_by_piece() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stage = start(config(), listener.local_addr().unwrap(), listener.local_addr().unwrap()).await;
    let mut client = Wire::connect(stage.addr).await;
    client.send(&get("acme.localhost", "/events")).await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.message().await.unwrap();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let mut seen = Vec::new();
    for piece in ["first", "again"] {
        upstream.send(&format!("5\r\n{piece}\r\n")).await;
        // Before the application has said anything more.
        while !String::from_utf8_lossy(&seen).contains(piece) {
            let n = tokio::time::timeout(LONG, client.stream.read_buf(&mut seen)).await.unwrap().unwrap();
            assert!(n > 0);
        }
    }
    // An application that breaks off is seen as that, not as an end.
    drop(upstream);
    let ended = tokio::time::timeout(LONG, client.stream.read_buf(&mut seen)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)) && !seen.ends_with(b"0\r\n\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_and_one_that_was_closed_is_not_missed() {
    // Each connection carries two requests and is closed without a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut count = 0;
        loop {
            let mut wire = Wire::new(listener.accept().await.unwrap().0);
            count += 1;
            for _ in 0..2 {
                if wire.message().await.is_some() {
                    wire.send(&ok(&format!("connection {count}"))).await;
                }
            }
        }
    });
    let stage = start(config(), addr, addr).await;
    let mut client = Wire::connect(stage.addr).await;
    for n in 0..20 {
        let answer = client.ask(&get("acme.localhost", "/")).await;
        assert!(answer.ends_with(&format!("connection {}", n / 2 + 1)), "request {n}: {answer}");
    }
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_leave_the_connection_good() {
    let main = app(|request| match request.split(' ').next().unwrap() {
        "HEAD" => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_owned(),
        "DELETE" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        _ => ok("whole"),
    })
    .await;
    let stage = start(config(), main.addr, main.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    client.send("HEAD / HTTP/1.1\r\nhost: acme.localhost\r\n\r\nDELETE / HTTP/1.1\r\nhost: acme.localhost\r\n\r\n").await;
    client.send(&get("acme.localhost", "/")).await;
    let mut all = Vec::new();
    while !all.ends_with(b"whole") {
        let n = tokio::time::timeout(LONG, client.stream.read_buf(&mut all)).await.unwrap().unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&all));
    }
    let all = String::from_utf8(all).unwrap();
    assert!(all.contains("content-length: 1000") && all.contains("204 No Content"), "{all}");
    assert_eq!(main.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_becomes_a_tunnel_and_nothing_else_does() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut wire = Wire::new(listener.accept().await.unwrap().0);
        let request = wire.message().await.unwrap();
        assert!(request.contains("upgrade: websocket\r\n") && request.contains("connection: upgrade\r\n"), "{request}");
        wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let (mut read, mut write) = wire.stream.into_split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        // The next one asks for what is not allowed: a request like any other.
        let mut wire = Wire::new(listener.accept().await.unwrap().0);
        let request = wire.message().await.unwrap();
        assert!(!request.contains("upgrade"), "{request}");
        wire.send(&ok("plain")).await;
    });
    let stage = start(config(), addr, addr).await;
    let mut client = Wire::connect(stage.addr).await;
    let ask = |protocol| {
        format!("GET /ws HTTP/1.1\r\nhost: acme.localhost\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: {protocol}\r\n\r\n")
    };
    let answer = client.ask(&ask("websocket")).await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("upgrade: websocket"), "{answer}");
    for _ in 0..3 {
        client.stream.write_all(b"\x81\x05hello").await.unwrap();
        let mut back = [0; 7];
        client.stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"\x81\x05hello");
    }
    // Its tenant is suspended, and it ends; then the tenant is served again.
    let state = |state| {
        let mut tenant = insula_catalog::fake::tenant("acme", 1, "bronze", "main").unwrap();
        (tenant.id, tenant.state) = (stage.tenant("acme").id, state);
        stage.source.change(|content| content.put_tenant(tenant));
    };
    state(TenantState::Suspended);
    assert!(client.is_closed().await);
    state(TenantState::Active);
    stage.seen(|route| route.state() == TenantState::Active).await;
    let mut client = Wire::connect(stage.addr).await;
    assert!(client.ask(&ask("h2c")).await.ends_with("plain"));
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_everybody_finish() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stage = start(config(), addr, addr).await;
    let (mut busy, mut idle) = (Wire::connect(stage.addr).await, Wire::connect(stage.addr).await);
    busy.send(&get("acme.localhost", "/slow")).await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.message().await.unwrap();
    idle.send(&get("nobody.localhost", "/")).await;
    idle.message().await.unwrap();
    stage.shutdown.trigger();
    // A request that crosses with the stop is answered, as the last of its connection.
    let answer = idle.ask(&get("nobody.localhost", "/")).await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    upstream.send(&ok("in the end")).await;
    let answer = busy.message().await.unwrap();
    assert!(answer.ends_with("in the end"), "{answer}");
    assert!(busy.is_closed().await && idle.is_closed().await);
    tokio::time::timeout(LONG, stage.running).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_with_prior_knowledge_is_served() {
    let (main, second) = (echo("main").await, echo("second").await);
    let stage = start(config(), main.addr, second.addr).await;
    let client =
        reqwest::Client::builder().http2_prior_knowledge().no_proxy().resolve("acme.localhost", stage.addr).build().unwrap();
    let answers = join_all((0..50).map(|n| {
        let url = format!("http://acme.localhost:{}/{n}", stage.addr.port());
        let request = client.post(url).body("hello");
        async move { request.send().await.unwrap().text().await.unwrap() }
    }))
    .await;
    for (n, answer) in answers.iter().enumerate() {
        assert!(answer.starts_with(&format!("main\nPOST /{n} HTTP/1.1\r\n")), "{answer}");
        assert!(
            answer.contains(&format!("host: acme.localhost:{}\r\n", stage.addr.port())) && answer.ends_with("hello"),
            "{answer}"
        );
    }
}

/// As load balancers ask: by address, or with no host at all. Host names are tenants' own, those paths with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_hears_whether_it_may_send_requests() {
    let main = echo("main").await;
    let mut settings = config();
    settings.resolve.fallback = Some("acme".parse().unwrap());
    let stage = start(settings, main.addr, main.addr).await;
    let deadline = tokio::time::Instant::now() + LONG;
    let mut client = Wire::connect(stage.addr).await;
    while status(&client.ask(&get("127.0.0.1", "/readyz")).await) != 200 {
        assert!(tokio::time::Instant::now() < deadline, "never ready");
    }
    for host in ["127.0.0.1", "10.0.0.7:8080", "[::1]:80"] {
        for path in ["/healthz", "/readyz", "/readyz?from=elb"] {
            let answer = client.ask(&get(host, path)).await;
            assert!(status(&answer) == 200 && answer.contains("cache-control: no-store\r\n"), "{host} {path}: {answer}");
        }
        // Nothing else is different there.
        assert!(client.ask(&get(host, "/healthz/x")).await.contains("\r\n\r\nmain\nGET /healthz/x"));
    }
    let mut old = Wire::connect(stage.addr).await;
    assert_eq!(status(&old.ask("GET /readyz HTTP/1.0\r\n\r\n").await), 200);
    let mut head = Wire::connect(stage.addr).await;
    head.send("HEAD /readyz HTTP/1.1\r\nhost: 10.0.0.7\r\n\r\n").await;
    let mut told = [0; 15];
    head.stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 200 OK");
    for (host, path) in [("acme.localhost", "/healthz"), ("acme.localhost", "/readyz")] {
        let answer = client.ask(&get(host, path)).await;
        assert!(answer.contains(&format!("\r\n\r\nmain\nGET {path} ")), "a tenant's own: {answer}");
    }
    assert!(client.ask("POST /readyz HTTP/1.1\r\nhost: 10.0.0.7\r\ncontent-length: 0\r\n\r\n").await.contains("main\nPOST"));
    // While it drains, it lives and gets no more: on a connection that was there before.
    let mut before = Wire::connect(stage.addr).await;
    assert_eq!(status(&before.ask(&get("10.0.0.7", "/readyz")).await), 200);
    stage.shutdown.trigger();
    let answer = before.ask(&get("10.0.0.7", "/readyz")).await;
    assert!(status(&answer) == 503 && answer.contains("connection: close\r\n"), "{answer}");
}
