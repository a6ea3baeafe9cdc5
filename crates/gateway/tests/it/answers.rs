//! Answers of every kind, one after the other on the same connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::stage::{LONG, Wire, config, get, ok, start, status};

const LARGE: usize = 200_000;

/// The kinds: how they are asked for, what the application says, and the body that arrives.
fn kinds() -> Vec<(String, String, String)> {
    let get = |path: &str| get("acme.localhost", path);
    let large = "x".repeat(LARGE);
    let usual = "HTTP/1.1 200 OK\r\n";
    let kind = |ask: String, answer: String, body: &str| (ask, answer, body.to_owned());
    vec![
        kind(get("/sized"), ok("sized"), "sized"),
        kind(get("/large"), ok(&large), &large),
        kind(get("/empty"), ok(""), ""),
        kind(
            get("/chunked"),
            format!("{usual}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        kind(get("/interim"), format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{}", ok("final")), "final"),
        kind(get("/reason"), "HTTP/1.1 200 Fine\r\ncontent-length: 4\r\n\r\nfine".to_owned(), "fine"),
        kind(get("/bare"), "HTTP/1.1 204 No Content\r\n\r\n".to_owned(), ""),
        kind(get("/same"), "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n".to_owned(), ""),
        kind(get("/bare-sized"), "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n".to_owned(), ""),
        kind(get("/same-sized"), "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n".to_owned(), ""),
        kind("POST /posted HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 3\r\n\r\nabc".to_owned(), ok("posted"), "posted"),
        kind("POST /none HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 0\r\n\r\n".to_owned(), ok("no body"), "no body"),
    ]
}

/// Says to each path what it is to say, in pieces of so many bytes. Counts connections.
async fn application(piece: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&connections);
    let path = |request: &str| request.split(' ').nth(1).unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            stream.set_nodelay(true).unwrap();
            let mut wire = Wire::new(stream);
            tokio::spawn(async move {
                while let Some(request) = wire.message().await {
                    let kinds = kinds();
                    let (_, answer, _) = kinds.iter().find(|(ask, ..)| path(ask) == path(&request)).unwrap();
                    for piece in answer.as_bytes().chunks(piece) {
                        wire.stream.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
    });
    (addr, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_may_follow_each_on_a_connection() {
    for piece in [1 << 20, 40_000, 50, 7] {
        let (addr, connections) = application(piece).await;
        let stage = start(config(), addr, addr).await;
        stage.unlimited("acme");
        stage.seen(|route| route.plan.name.as_str() == "gold").await;
        let mut client = Wire::connect(stage.addr).await;
        let kinds = kinds();
        // A large answer takes long in small pieces.
        let kinds: Vec<_> = kinds.iter().filter(|(_, answer, _)| piece > 100 || answer.len() < LARGE).collect();
        for (first, second) in kinds.iter().flat_map(|one| kinds.iter().map(move |other| (one, other))) {
            for (ask, said, body) in [first, second] {
                let answer = client.ask(ask).await;
                assert_eq!(status(&answer), said.rsplit_once("HTTP/1.1 ").unwrap().1[..3].parse::<u16>().unwrap(), "{ask}");
                assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{ask} in pieces of {piece}: {answer:.400}");
                assert!(!answer.contains("transfer-encoding") || body.ends_with("0\r\n\r\n"), "{answer:.400}");
            }
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1, "pieces of {piece}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_no_whole_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stage = start(config(), addr, addr).await;
    for said in ["HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "HTTP/1.1 2"] {
        let mut client = Wire::connect(stage.addr).await;
        client.send(&get("acme.localhost", "/")).await;
        let mut upstream = Wire::new(listener.accept().await.unwrap().0);
        upstream.message().await.unwrap();
        upstream.send(said).await;
        drop(upstream);
        let answer = tokio::time::timeout(LONG, client.message()).await.unwrap();
        // Whoever has seen the head sees that the rest is missing; the others hear of it.
        let is_seen = if said.contains("\r\n\r\n") { answer.is_none() } else { status(&answer.unwrap()) == 503 };
        assert!(is_seen, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_application_says_for_one_hop_or_in_two_ways_does_not_pass() {
    for (said, wanted) in [
        ("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\ncontent-length: 1\r\n\r\nx", 200),
        ("HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\ncontent-length: 1\r\n\r\nx", 200),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", 503),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nx : y\r\n\r\nx", 503),
    ] {
        let app = crate::stage::app(move |_| said.to_owned()).await;
        let stage = start(config(), app.addr, app.addr).await;
        let answer = Wire::connect(stage.addr).await.ask(&get("acme.localhost", "/")).await;
        assert_eq!(status(&answer), wanted, "{answer}");
        assert!(!answer.contains("keep-alive") && !answer.contains("x-hop"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_more_on_it_than_an_answer_is_not_used_again() {
    let app = crate::stage::app(|_| ok("whole") + "HTTP/1.1 200 OK\r\ncontent-len").await;
    let stage = start(config(), app.addr, app.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    for n in 1..=3 {
        assert!(client.ask(&get("acme.localhost", "/")).await.ends_with("whole"));
        assert_eq!(app.connections.load(Ordering::SeqCst), n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_sent_again_where_that_does_no_harm() {
    for (again, wanted) in [(get("acme.localhost", "/"), 200), (get("acme.localhost", "/").replace("GET", "POST"), 503)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut first = Wire::new(listener.accept().await.unwrap().0);
            first.message().await.unwrap();
            first.send(&ok("first")).await;
            // It takes the next request, and is gone.
            first.message().await.unwrap();
            drop(first);
            let mut second = Wire::new(listener.accept().await.unwrap().0);
            second.message().await.unwrap();
            second.send(&ok("second")).await;
        });
        let stage = start(config(), addr, addr).await;
        let mut client = Wire::connect(stage.addr).await;
        assert!(client.ask(&get("acme.localhost", "/")).await.ends_with("first"));
        let answer = client.ask(&again).await;
        assert_eq!((status(&answer), answer.ends_with("second")), (wanted, wanted == 200), "{answer}");
        serving.abort();
    }
}

/// What is read in pieces is read by another reader, which keeps the connection.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_gets_the_same_answer_however_it_comes() {
    let (addr, _) = application(1 << 20).await;
    let stage = start(config(), addr, addr).await;
    stage.unlimited("acme");
    stage.seen(|acme| acme.plan.name.as_str() == "gold").await;
    let fields = |answer: &str| -> Vec<String> {
        let own = |line: &&str| {
            !["date: ", "x-request-id: "].iter().any(|field| line.starts_with(field)) && !line.contains("request_id")
        };
        let mut lines: Vec<_> = answer.split("\r\n").filter(own).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let mut kinds: Vec<_> = kinds().into_iter().map(|(ask, ..)| ask).collect();
    // Refused by us: an unknown tenant, a second host.
    kinds.push(get("nobody.localhost", "/"));
    kinds.push("GET / HTTP/1.1\r\nhost: acme.localhost\r\nhost: acme.localhost\r\n\r\n".to_owned());
    for ask in kinds {
        let (mut at_once, mut in_pieces) = (Wire::connect(stage.addr).await, Wire::connect(stage.addr).await);
        let one = at_once.ask(&ask).await;
        let (first, rest) = ask.split_at(20);
        in_pieces.send(first).await;
        tokio::task::yield_now().await;
        // By the time of this answer, the first piece was read.
        assert_eq!(status(&at_once.ask(&get("acme.localhost", "/sized")).await), 200);
        in_pieces.send(rest).await;
        let other = in_pieces.message().await.unwrap();
        assert_eq!(fields(&one), fields(&other), "{ask}");
        for wire in [&mut at_once, &mut in_pieces] {
            assert!(wire.ask(&get("acme.localhost", "/sized")).await.ends_with("sized"));
        }
    }
}

/// Idle connections have been closed by then.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_late_in_a_drain_is_given() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nlate\r\n0\r\n\r\n";
    for said in [ok("late"), chunked.to_owned()] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut config = config();
        config.timeouts.linger_ms = 50;
        let stage = start(config, addr, addr).await;
        let (mut idle, mut client) = (Wire::connect(stage.addr).await, Wire::connect(stage.addr).await);
        // Idle, and known to be: it had an answer.
        assert_eq!(status(&idle.ask(&get("nobody.localhost", "/")).await), 404);
        client.send(&get("acme.localhost", "/")).await;
        let mut upstream = Wire::new(listener.accept().await.unwrap().0);
        upstream.message().await.unwrap();
        stage.shutdown.trigger();
        assert!(idle.is_closed().await);
        upstream.send(&said).await;
        let answer = client.message().await.unwrap();
        assert_eq!(status(&answer), 200);
        assert!(answer.contains("late") && answer.contains("connection: close"), "{answer}");
        assert!(client.is_closed().await);
    }
}
