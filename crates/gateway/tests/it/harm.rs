//! What one tenant's requests do to an application: its own affair, and over in time.

use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{SHA256, digest};
use insula_catalog::{ApiKey, fake};
use insula_core::KeyId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::rules;
use crate::stage::{LONG, Stage, Wire, app, config, echo, get, ok, one_place, start, status};

fn sum(text: &str) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    sum
}

/// Closes the connection on whoever asks for `/break`, as a process does that one request kills; answers others.
async fn fragile() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut clients = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            clients.spawn(async move {
                let mut client = Wire::new(stream);
                while let Some(request) = client.message().await {
                    if request.contains(" /break ") || client.stream.write_all(ok("fine").as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_tenant_breaks_is_not_taken_from_the_others() {
    let (one, two) = (fragile().await, fragile().await);
    let stage = start(config(), one, one).await;
    stage.source.change(|content| {
        content.put_tenant(fake::tenant("neighbour", 3, "gold", "main").unwrap());
        let mut wide = fake::cell("wide", "127.0.0.1", 1).unwrap();
        wide.app_url = Some(format!("http://{one} http://{two}").into());
        content.put_cell(wide);
        content.put_database(fake::database("wide", "insula_pool", 1).unwrap());
        content.put_tenant(fake::tenant("breaker", 4, "gold", "wide").unwrap());
        content.put_tenant(fake::tenant("bystander", 5, "gold", "wide").unwrap());
    });
    stage.unlimited("acme");
    let mut client = Wire::connect(stage.addr).await;
    for (breaks, other) in [("acme.localhost", "neighbour.localhost"), ("breaker.localhost", "bystander.localhost")] {
        // More often in a row than a circuit allows failures.
        for _ in 0..30 {
            assert_eq!(status(&client.ask(&get(breaks, "/break")).await), 503);
        }
        assert_eq!(status(&client.ask(&get(other, "/")).await), 200, "{other}");
        assert_eq!(status(&client.ask(&get(breaks, "/")).await), 200, "{breaks}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_never_comes_to_its_answer_is_cut_short() {
    let main = app(|request| {
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n";
        // Few are what they are for; these go on for longer than anybody reads.
        interim.repeat(if request.contains(" /few ") { 3 } else { 1_000_000 }) + &ok("at last")
    })
    .await;
    let mut config = config();
    (config.timeouts.request_ms, config.timeouts.response_ms) = (600_000, 600_000);
    let stage = start(config, main.addr, main.addr).await;
    stage.unlimited("acme");
    let mut client = Wire::connect(stage.addr).await;
    assert!(client.ask(&get("acme.localhost", "/few")).await.ends_with("at last"));
    let upgrade = "GET / HTTP/1.1\r\nhost: acme.localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    for asked in [get("acme.localhost", "/"), upgrade.to_owned()] {
        assert_eq!(status(&client.ask(&asked).await), 503, "{asked}");
    }
    assert!(client.ask(&get("acme.localhost", "/few")).await.ends_with("at last"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_slowly_has_no_seat_in_the_cell() {
    let main = echo("main").await;
    let stage = start(one_place(15_000), main.addr, main.addr).await.with_neighbour().await;
    let mut slow = Wire::connect(stage.addr).await;
    slow.send("POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 5\r\n\r\nh").await;
    // It has reached the application, and so has the only seat.
    let deadline = tokio::time::Instant::now() + LONG;
    while main.connections.load(Ordering::SeqCst) == 0 {
        assert!(tokio::time::Instant::now() < deadline, "it never arrives");
        tokio::task::yield_now().await;
    }
    let mut other = Wire::connect(stage.addr).await;
    assert_eq!(status(&other.ask(&get("neighbour.localhost", "/")).await), 200);
    slow.send("ello").await;
    assert!(slow.message().await.expect("an answer").ends_with("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_has_no_seat_in_the_cell() {
    let large = "z".repeat(50 << 20);
    let main = app(move |request| ok(if request.starts_with("GET /large") { &large } else { "small" })).await;
    let stage = start(one_place(15_000), main.addr, main.addr).await.with_neighbour().await;
    let mut slow = Wire::connect(stage.addr).await;
    slow.send(&get("acme.localhost", "/large")).await;
    head(&mut slow).await;
    let mut other = Wire::connect(stage.addr).await;
    assert_eq!(status(&other.ask(&get("neighbour.localhost", "/")).await), 200);
    // It is told to its end all the same.
    for _ in 0..50 {
        assert_eq!(some(&mut slow, 1 << 20).await.len(), 1 << 20);
    }
    assert!(slow.ask(&get("acme.localhost", "/")).await.ends_with("small"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_after_an_answer_is_nobodys_answer() {
    // Two answers for each request.
    let main = app(|_| ok("first") + &ok("second")).await;
    let stage = start(config(), main.addr, main.addr).await;
    for _ in 0..5 {
        let mut client = Wire::connect(stage.addr).await;
        assert!(client.ask(&get("acme.localhost", "/")).await.ends_with("first"));
        assert!(client.ask(&get("globex.localhost", "/")).await.ends_with("first"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_body_is_not_believed_either() {
    let main = echo("main").await;
    let stage = start(config(), main.addr, main.addr).await;
    let ask = "POST / HTTP/1.1\r\nhost: acme.localhost\r\ntrailer: insula-tenant-context\r\ntransfer-encoding: chunked\r\n\r\n\
               2\r\nhi\r\n0\r\ninsula-tenant-context: forged\r\nhost: globex.localhost\r\n\r\n";
    let answer = Wire::connect(stage.addr).await.ask(ask).await;
    assert!(
        status(&answer) == 200 && answer.contains("hi") && !answer.contains("forged") && !answer.contains("globex"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_arrives_whatever_the_method() {
    let main = echo("main").await;
    let stage = start(config(), main.addr, main.addr).await;
    for method in ["GET", "DELETE", "POST"] {
        let ask =
            format!("{method} / HTTP/1.1\r\nhost: acme.localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let answer = Wire::connect(stage.addr).await.ask(&ask).await;
        assert!(answer.contains("transfer-encoding: chunked") && answer.contains("\r\n\r\n5\r\nhello\r\n0\r\n"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_browsers_send_in_pieces_over_http2_is_one_cookie() {
    let main = echo("main").await;
    let stage = start(config(), main.addr, main.addr).await;
    let client =
        reqwest::Client::builder().http2_prior_knowledge().no_proxy().resolve("acme.localhost", stage.addr).build().unwrap();
    let ask = client.get(format!("http://acme.localhost:{}/", stage.addr.port()));
    let ask = ask.header("cookie", "theme=dark").header("cookie", "session=secret").header("accept", "text/plain");
    let answer = ask.send().await.unwrap().text().await.unwrap();
    assert!(answer.contains("\r\ncookie: theme=dark; session=secret\r\n"), "{answer}");
}

const SECRET: &str = "ik_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Gives acme an API key.
async fn key(stage: &Stage) -> ApiKey {
    let key = ApiKey { id: KeyId::new(), tenant: stage.tenant("acme").id, hash: sum(SECRET), scopes: [].into(), expires: None };
    stage.source.change(|content| content.put_key(key.clone()));
    stage.catalog.refresh().await.unwrap();
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_for_long_ends_when_its_key_is_revoked_or_its_time_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stage = start(config(), addr, addr).await;
    let by_key = format!("host: acme.localhost\r\nauthorization: Bearer {SECRET}\r\n");
    let wish = "connection: upgrade\r\nupgrade: websocket\r\n";
    let tunnel = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n";
    for (wish, answer, is_revoked) in [(wish, tunnel, true), ("", events, true), (wish, tunnel, false), ("", events, false)] {
        let key = key(&stage).await;
        let (mut client, mut other) = (Wire::connect(stage.addr).await, Wire::connect(stage.addr).await);
        client.send(&format!("GET / HTTP/1.1\r\n{by_key}{wish}\r\n")).await;
        let mut upstream = Wire::new(listener.accept().await.unwrap().0);
        upstream.message().await.unwrap();
        upstream.send(answer).await;
        // Somebody without the key has one, too.
        other.send(&format!("GET / HTTP/1.1\r\nhost: acme.localhost\r\n{wish}\r\n")).await;
        let mut others = Wire::new(listener.accept().await.unwrap().0);
        others.message().await.unwrap();
        others.send(answer).await;
        for (client, upstream) in [(&mut client, &mut upstream), (&mut other, &mut others)] {
            head(client).await;
            upstream.send("begun").await;
            assert_eq!(some(client, 5).await, "begun");
        }
        if is_revoked {
            stage.source.change(|content| content.remove_key(key.id));
        } else {
            stage.source.change(|content| content.put_key(ApiKey { expires: Some(rules::now() + 2), ..key.clone() }));
            stage.catalog.refresh().await.unwrap();
            // The end itself is nothing that the catalog says.
            stage.source.change(|content| content.set_failing(true));
        }
        assert!(client.is_closed().await && upstream.is_closed().await);
        others.send("goes on").await;
        assert_eq!(some(&mut other, 7).await, "goes on");
        stage.source.change(|content| content.set_failing(false));
        stage.source.change(|content| content.remove_key(key.id));
    }
}

/// The head of an answer that has no end yet.
async fn head(client: &mut Wire) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head += &some(client, 1).await;
    }
}

async fn some(client: &mut Wire, n: usize) -> String {
    let mut bytes = vec![0; n];
    tokio::time::timeout(LONG, client.stream.read_exact(&mut bytes)).await.expect("in time").expect("open");
    String::from_utf8(bytes).unwrap()
}
