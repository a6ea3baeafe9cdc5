//! HTTP/2 as an attacker writes it, frame by frame: streams that stand still are reset, heads that never end are not waited for.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::stage::{App, LONG, Stage, Wire, app, config, get, ok, one_place, start, status};

/// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`, in HPACK's table.
const OK: u8 = 0x88;

/// A client that writes frames and answers nothing by itself.
struct Raw(TcpStream);

struct Seen {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Raw {
    /// With the window that streams begin with.
    async fn connect(stage: &Stage, window: u32) -> Self {
        let mut this = Self(TcpStream::connect(stage.addr).await.unwrap());
        this.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut settings = vec![0, 4];
        settings.extend(window.to_be_bytes());
        this.frame(SETTINGS, 0, 0, &settings).await;
        this
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// `GET /` for acme.
    async fn ask(&mut self, stream: u32) {
        let head = [&[0x82, 0x86, 0x84, 0x41, 14][..], b"acme.localhost"].concat();
        self.frame(HEADERS, END_STREAM | END_HEADERS, stream, &head).await;
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Seen> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some(Seen { kind: head[3], stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload })
        };
        tokio::time::timeout(LONG, read).await.expect("a frame, or the end, in time")
    }

    async fn next_of(&mut self, stream: u32) -> Seen {
        loop {
            let seen = self.next().await.expect("an open connection");
            if seen.stream == stream {
                return seen;
            }
        }
    }

    async fn end(&mut self) {
        while self.next().await.is_some() {}
    }
}

async fn large() -> App {
    app(|_| ok(&"z".repeat(8 << 20))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_no_window_for_the_rest_has_no_seat_in_the_cell() {
    let main = app(|request| ok(&"z".repeat(if request.contains("host: acme") { 1 << 20 } else { 5 }))).await;
    let stage = start(one_place(15_000), main.addr, main.addr).await.with_neighbour().await;
    // What HTTP/2 begins with (RFC 9113, section 6.9.2); none is ever added.
    let mut slow = Raw::connect(&stage, 65_535).await;
    slow.ask(1).await;
    while slow.next_of(1).await.kind != DATA {}
    let mut other = Wire::connect(stage.addr).await;
    assert_eq!(status(&other.ask(&get("neighbour.localhost", "/")).await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_which_nothing_is_taken_is_reset_and_its_place_is_free() {
    let main = large().await;
    let mut config = one_place(0);
    // Long enough to be asked meanwhile.
    config.timeouts.send_ms = 2_000;
    for window in [0, 1_000] {
        let stage = start(config.clone(), main.addr, main.addr).await;
        let mut client = Raw::connect(&stage, window).await;
        client.ask(1).await;
        let head = client.next_of(1).await;
        assert_eq!((head.kind, head.payload[0]), (HEADERS, OK));
        // It holds the only place, whatever else moves on the connection.
        client.ask(3).await;
        assert_ne!(client.next_of(3).await.payload[0], OK);
        let mut seen = client.next_of(1).await;
        while seen.kind == DATA {
            seen = client.next_of(1).await;
        }
        assert_eq!(seen.kind, RST_STREAM);
        client.ask(5).await;
        assert_eq!(client.next_of(5).await.payload[0], OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_not_waited_for() {
    let main = app(|_| ok("here")).await;
    let mut config = config();
    config.timeouts.header_ms = 1_000;
    config.timeouts.idle_ms = 2_000;
    let stage = start(config, main.addr, main.addr).await;
    // From the start; behind a request that was answered; and one that says nothing after it.
    for (asks, begins) in [(false, true), (true, true), (true, false)] {
        let mut client = Raw::connect(&stage, 65_535).await;
        if asks {
            client.ask(1).await;
            assert_eq!(client.next_of(1).await.payload[0], OK);
        }
        if begins {
            client.frame(HEADERS, END_STREAM, 3, &[0x82, 0x86]).await;
        }
        client.end().await;
    }
    // A beginning, and then byte after byte.
    let mut client = TcpStream::connect(stage.addr).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n").await.unwrap();
    let dripping = async {
        let bytes = b"\r\n\0\0\0\x04".iter().copied().chain(std::iter::repeat(0));
        for byte in bytes {
            if client.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG, dripping).await.expect("let go");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_falls_silent_resets_its_stream_alone() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut config = config();
    config.timeouts.stream_ms = 300;
    let stage = start(config, addr, addr).await;
    let mut client = Raw::connect(&stage, 65_535).await;
    client.ask(1).await;
    let mut silent = crate::stage::Wire::new(listener.accept().await.unwrap().0);
    silent.message().await.unwrap();
    silent.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegun").await;
    let kinds = [client.next_of(1).await.kind, client.next_of(1).await.kind, client.next_of(1).await.kind];
    assert_eq!(kinds, [HEADERS, DATA, RST_STREAM]);
    assert!(silent.is_closed().await);
    client.ask(3).await;
    let mut well = crate::stage::Wire::new(listener.accept().await.unwrap().0);
    well.message().await.unwrap();
    well.send(&ok("whole")).await;
    assert_eq!(client.next_of(3).await.kind, HEADERS);
    assert_eq!(client.next_of(3).await.payload, b"whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_may_last_as_long_as_it_likes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut config = config();
    // All shorter than the answer takes; a pause between two pieces is shorter than any.
    (config.timeouts.request_ms, config.timeouts.response_ms) = (1_500, 1_500);
    (config.timeouts.idle_ms, config.timeouts.header_ms) = (1_500, 1_500);
    let stage = start(config, addr, addr).await;
    let mut client = Raw::connect(&stage, 10).await;
    client.ask(1).await;
    let mut upstream = crate::stage::Wire::new(listener.accept().await.unwrap().0);
    upstream.message().await.unwrap();
    upstream.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 50 * 10)).await;
    assert_eq!(client.next_of(1).await.kind, HEADERS);
    for _ in 0..50 {
        upstream.send(&"y".repeat(10)).await;
        assert_eq!(client.next_of(1).await.payload, b"yyyyyyyyyy");
        client.frame(WINDOW_UPDATE, 0, 1, &10_u32.to_be_bytes()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nothing is lost of an answer that is larger than what is handed over at once.
    let main = large().await;
    let stage = start(crate::stage::config(), main.addr, main.addr).await;
    let client =
        reqwest::Client::builder().http2_prior_knowledge().no_proxy().resolve("acme.localhost", stage.addr).build().unwrap();
    let answer = client.get(format!("http://acme.localhost:{}/", stage.addr.port())).send().await.unwrap();
    assert_eq!(answer.content_length(), Some(8 << 20));
    assert_eq!(answer.bytes().await.unwrap(), "z".repeat(8 << 20));
}
