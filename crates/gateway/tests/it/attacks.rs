//! What an attacker writes on a socket: refused, or understood in one way only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use insula_core::token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rules;
use crate::stage::{LONG, Wire, app, config, echo, get, ok, start, status};

/// What is sent, and the statuses that are good answers; the application must not see it unless 200 is among them.
const SENTENCES: &[(&str, &[u16])] = &[
    ("GET / HTTP/1.1\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: acme.localhost\r\nhost: acme.localhost\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: acme.localhost\r\nhost: globex.localhost\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: acme.localhost, globex.localhost\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: \r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: acme.localhost:99999\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: acme.localhost:80:80\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: a@acme.localhost\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: acme.localhost/x\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: acmé.localhost\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: xn--acm-dma.localhost\r\n\r\n", &[404]),
    ("GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", &[404]),
    ("GET / HTTP/1.1\r\nhost: [::1\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: ACME.LOCALHOST.:8080\r\n\r\n", &[200]),
    ("GET http://globex.localhost/ HTTP/1.1\r\nhost: acme.localhost\r\n\r\n", &[400]),
    ("GET http://acme.localhost/ HTTP/1.1\r\nhost: acme.localhost:80\r\n\r\n", &[200]),
    ("CONNECT acme.localhost:80 HTTP/1.1\r\nhost: acme.localhost\r\n\r\n", &[405]),
    ("GET / HTTP/1.1\r\nhost: acme.localhost\r\nx: a\r\n b\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost : acme.localhost\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\n host: acme.localhost\r\n\r\n", &[400]),
    ("GET / HTTP/1.1\r\nhost: acme.localhost\r\nx: a\0b\r\n\r\n", &[400]),
    ("GET /\u{1} HTTP/1.1\r\nhost: acme.localhost\r\n\r\n", &[400]),
    ("GET / HTTP/1.0\r\nhost: acme.localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", &[400]),
    ("POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: +1\r\n\r\na", &[400]),
    ("POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: -1\r\n\r\na", &[400]),
    ("POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 0x1\r\n\r\na", &[400]),
    ("POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 1, 2\r\n\r\na", &[400]),
    ("POST / HTTP/1.1\r\nhost: acme.localhost\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", &[400, 501]),
    ("POST / HTTP/1.1\r\nhost: acme.localhost\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", &[400, 501]),
    ("POST / HTTP/1.1\r\nhost: acme.localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[400, 501]),
    (
        "POST / HTTP/1.1\r\nhost: acme.localhost\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    ("POST / HTTP/1.1\r\nhost: acme.localhost\r\ntransfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n", &[400, 501]),
    ("GARBAGE\r\n\r\n", &[400]),
    ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}\r\n\r\n", &[400]),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_read_in_two_ways_is_refused() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let main = app(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        ok("seen")
    })
    .await;
    let stage = start(config(), main.addr, main.addr).await;
    for (sentence, good) in SENTENCES {
        let before = seen.load(Ordering::SeqCst);
        let mut client = Wire::connect(stage.addr).await;
        client.send(sentence).await;
        let answer = client.message().await.unwrap_or_else(|| panic!("no answer to {sentence:?}"));
        assert!(good.contains(&status(&answer)), "{sentence:?}: {answer}");
        let passed = seen.load(Ordering::SeqCst) - before;
        assert_eq!(passed, usize::from(good.contains(&200)), "{sentence:?} reached the application");
    }
}

/// Two lengths in one request: whichever way it is meant, the second request inside it is never served.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_inside_a_body_stays_a_body() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let main = app(move |request| {
        log.lock().unwrap().push(request.to_owned());
        ok("seen")
    })
    .await;
    let stage = start(config(), main.addr, main.addr).await;
    let inner = "GET /smuggled HTTP/1.1\r\nhost: globex.localhost\r\n\r\n";
    let both = |first: &str, second: &str| {
        format!("POST /outer HTTP/1.1\r\nhost: acme.localhost\r\n{first}\r\n{second}\r\n\r\n0\r\n\r\n{inner}")
    };
    let (te, cl) = ("transfer-encoding: chunked", format!("content-length: {}", 5 + inner.len()));
    for attack in [both(te, &cl), both(&cl, te)] {
        let mut client = Wire::connect(stage.addr).await;
        client.send(&attack).await;
        let mut all = Vec::new();
        // Closed behind the one answer: what follows a doubtful body is not read as a request.
        let _ = tokio::time::timeout(LONG, client.stream.read_to_end(&mut all)).await.expect("closed");
        assert_eq!(String::from_utf8_lossy(&all).matches("HTTP/1.1 ").count(), 1, "{}", String::from_utf8_lossy(&all));
    }
    let seen = seen.lock().unwrap();
    assert!(!seen.iter().any(|request| request.contains("/smuggled")), "{seen:?}");
    assert!(seen.iter().all(|request| !request.to_ascii_lowercase().contains("content-length")), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_speaks_in_the_gateways_name() {
    let main = echo("main").await;
    let stage = start(config(), main.addr, main.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    let forged = "GET / HTTP/1.1\r\nhost: acme.localhost\r\ninsula-tenant-context: forged\r\nInsula-Principal: root\r\n\
                  x-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nx-request-id: chosen-by-client\r\n\
                  connection: x-request-id, host, x-forwarded-for\r\n\r\n";
    let answer = client.ask(forged).await.to_ascii_lowercase();
    assert!(!["forged", "root", "6.6.6.6", "chosen-by-client"].iter().any(|text| answer.contains(text)), "{answer}");
    assert!(answer.contains("x-forwarded-for: 127.0.0.1\r\n") && answer.contains("host: acme.localhost\r\n"), "{answer}");
}

/// A context that is genuine and fresh, at another tenant's host, by the client who was shown it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_context_token_is_replaced_by_the_gateways_own() {
    let (main, second) = (echo("main").await, echo("second").await);
    let file = tempfile::NamedTempFile::new().unwrap();
    let keys = rules::keys();
    std::fs::write(file.path(), keys.to_json()).unwrap();
    let mut config = config();
    config.identity.signing_keys = Some(file.path().to_owned());
    let stage = start(config, main.addr, second.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    let answer = client.ask(&get("acme.localhost", "/")).await;
    let genuine = rules::context(&answer).to_owned();
    let judge = |token: &str, cell: &str| {
        token::verify(token, &keys.public(), token::GATEWAY, &format!("insula-app:{cell}"), rules::now())
            .map(|claims| claims.slug)
    };
    assert_eq!(judge(&genuine, "main").unwrap().as_str(), "acme");
    for field in [
        format!("insula-tenant-context: {genuine}"),
        format!("insula-tenant-context: {genuine}\r\nInsula-Tenant-Context: {genuine}"),
        format!("insula_tenant_context: {genuine}"),
        format!("connection: insula-tenant-context\r\ninsula-tenant-context: {genuine}"),
    ] {
        let answer = client.ask(&format!("GET / HTTP/1.1\r\nhost: globex.localhost\r\n{field}\r\n\r\n")).await;
        assert!(status(&answer) == 200 && !answer.contains(&genuine), "{answer}");
        assert_eq!(answer.to_ascii_lowercase().matches("tenant-context: ").count(), 1, "{answer}");
        assert_eq!(judge(rules::context(&answer), "second").unwrap().as_str(), "globex");
        // To a host of nobody it opens nothing.
        let answer = client.ask(&format!("GET / HTTP/1.1\r\nhost: nobody.localhost\r\n{field}\r\n\r\n")).await;
        assert_eq!(status(&answer), 404, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_head_is_refused_and_costs_nothing_more() {
    let main = echo("main").await;
    let stage = start(config(), main.addr, main.addr).await;
    for head in [format!("x: {}\r\n", "y".repeat(100_000)), "x: y\r\n".repeat(500)] {
        let mut client = Wire::connect(stage.addr).await;
        let _ = client.stream.write_all(format!("GET / HTTP/1.1\r\nhost: acme.localhost\r\n{head}\r\n").as_bytes()).await;
        if let Some(answer) = client.message().await {
            assert_eq!(status(&answer), 431, "{answer}");
        }
    }
    let mut client = Wire::connect(stage.addr).await;
    let answer = client.ask(&get("acme.localhost", &format!("/{}", "z".repeat(70_000)))).await;
    assert!(matches!(status(&answer), 414 | 431), "{answer}");
}

/// However it comes: whole, so that one read brings all of it, or in pieces.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_be_as_long_as_the_bound_and_no_longer() {
    let main = app(|_| ok("came through")).await;
    for most in [2 << 10, 32 << 10] {
        let mut config = config();
        config.limits.header_bytes = most;
        let stage = start(config, main.addr, main.addr).await;
        let head = |bytes: usize| {
            let rest = "GET / HTTP/1.1\r\nhost: acme.localhost\r\nx: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nhost: acme.localhost\r\nx: {}\r\n\r\n", "y".repeat(bytes - rest))
        };
        for (bytes, expected) in [(most, 200), (most + 1, 431), (most + 3_000, 431)] {
            let mut client = Wire::connect(stage.addr).await;
            assert_eq!(status(&client.ask(&head(bytes)).await), expected, "{bytes} of {most} bytes");
            let (text, mut client) = (head(bytes), Wire::connect(stage.addr).await);
            let (first, last) = text.split_at(most - 1);
            client.send(first).await;
            tokio::task::yield_now().await;
            assert_eq!(status(&client.ask(last).await), expected, "{bytes} of {most} bytes, in two pieces");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_let_go() {
    let main = app(|_| ok(&"z".repeat(50 << 20))).await;
    let mut config = config();
    config.timeouts.header_ms = 300;
    // Longer than anybody here who does ask needs for it.
    config.timeouts.idle_ms = 2_000;
    config.timeouts.request_ms = 500;
    config.timeouts.send_ms = 500;
    let stage = start(config, main.addr, main.addr).await;
    // Says nothing; begins and does not go on; a byte now and then, whatever it is about.
    let mut silent = Wire::connect(stage.addr).await;
    let mut begun = Wire::connect(stage.addr).await;
    begun.send("GET / HTTP/1.1\r\nhost: acme").await;
    let mut drip = Wire::connect(stage.addr).await;
    let dripping = async {
        loop {
            if drip.stream.write_all(b"x").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG, dripping).await.expect("let go");
    assert!(silent.is_closed().await && begun.is_closed().await);
    // A body that does not come is said so.
    let mut body = Wire::connect(stage.addr).await;
    let answer = body.ask("POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 10\r\n\r\nabc").await;
    assert!(matches!(status(&answer), 408 | 504), "{answer}");
    // One that takes nothing of its answer.
    let mut deaf = Wire::connect(stage.addr).await;
    deaf.send(&get("acme.localhost", "/")).await;
    let let_go = async {
        // Nothing is read; only the end of the connection shows, as an error of writing.
        while deaf.stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG, let_go).await.expect("let go");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_the_plan_is_refused_early() {
    let main = echo("main").await;
    let stage = start(config(), main.addr, main.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    let answer = client.ask("POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 5000000\r\n\r\n").await;
    assert_eq!(status(&answer), 413);
    let mut client = Wire::connect(stage.addr).await;
    client.send("POST / HTTP/1.1\r\nhost: acme.localhost\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let piece = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    for _ in 0..6 {
        let _ = client.stream.write_all(piece.as_bytes()).await;
    }
    if let Some(answer) = client.message().await {
        assert_eq!(status(&answer), 413, "{answer}");
    }
}
