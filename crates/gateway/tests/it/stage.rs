//! A gateway with a catalog in memory, applications that are a few lines long, and clients that write bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use insula_catalog::{Catalog, FakeSource, Options, Route, fake};
use insula_gateway::{Config, Listeners};
use insula_telemetry::{Readiness, Senses, Shutdown};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A running gateway.
pub(crate) struct Stage {
    pub(crate) addr: SocketAddr,
    pub(crate) source: FakeSource,
    pub(crate) catalog: Catalog,
    pub(crate) senses: Senses,
    pub(crate) shutdown: Shutdown,
    pub(crate) running: JoinHandle<Result<(), insula_gateway::Error>>,
}

/// An address where nobody answers, and where nobody else can begin to while this is held.
pub(crate) struct Nobody {
    pub(crate) addr: SocketAddr,
    _bound: TcpSocket,
}

pub(crate) fn nobody() -> Nobody {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Never listened on.
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    Nobody { addr: socket.local_addr().expect("an address"), _bound: socket }
}

/// Settings of a test: one worker, so that what it keeps is seen.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.listen.http = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.listen.workers = 1;
    // A request that crosses with a stop may be long on its way.
    config.timeouts.linger_ms = config.timeouts.drain_ms;
    config
}

/// The same, with one place in each cell, for which a request waits so many milliseconds: whoever holds it too long is noticed.
pub(crate) fn one_place(max_wait_ms: u32) -> Config {
    let mut config = config();
    let limit = &mut config.admission.limit;
    (limit.initial, limit.min, limit.max) = (1, 1, 1);
    config.admission.max_wait_ms = max_wait_ms;
    config
}

/// Tenants `acme` in the cell `main` and `globex` in the cell `second`, with applications there.
pub(crate) async fn start(config: Config, main: SocketAddr, second: SocketAddr) -> Stage {
    let source = FakeSource::new();
    source.change(|content| {
        content.put_plan(fake::plan("bronze").expect("a plan"));
        let mut gold = fake::plan("gold").expect("a plan");
        gold.limits.requests_per_second = 1_000_000;
        gold.limits.request_burst = 1_000_000;
        content.put_plan(gold);
        for (name, app) in [("main", main), ("second", second)] {
            let mut cell = fake::cell(name, "127.0.0.1", 1).expect("a cell");
            cell.app_url = Some(format!("http://{app}").into());
            content.put_cell(cell);
            content.put_database(fake::database(name, "insula_pool", 1).expect("a database"));
        }
        content.put_tenant(fake::tenant("acme", 1, "bronze", "main").expect("a tenant"));
        content.put_tenant(fake::tenant("globex", 2, "bronze", "second").expect("a tenant"));
    });
    let catalog = Catalog::start(source.clone(), Options::default());
    catalog.ready().await;
    let listeners = Listeners::bind(&config.listen).expect("listening");
    let addr = listeners.addrs()[0].1;
    let shutdown = Shutdown::new(Duration::from_millis(config.timeouts.drain_ms));
    let (ready, senses) = (Readiness::new(), Senses::default());
    let serving = insula_gateway::serve(config, catalog.clone(), listeners, shutdown.clone(), ready, senses.clone());
    let running = tokio::spawn(serving);
    Stage { addr, source, catalog, senses, shutdown, running }
}

impl Stage {
    /// A tenant `neighbour` beside `acme`, in the cell `main`.
    pub(crate) async fn with_neighbour(self) -> Self {
        self.source.change(|content| content.put_tenant(fake::tenant("neighbour", 3, "bronze", "main").expect("a tenant")));
        self.catalog.refresh().await.expect("a catalog");
        self
    }

    /// A tenant as the gateway knows it.
    pub(crate) fn tenant(&self, slug: &str) -> Arc<Route> {
        self.catalog.by_slug(slug).expect("a tenant").arc()
    }

    /// Gives a tenant a plan without limits that a test could reach.
    pub(crate) fn unlimited(&self, slug: &str) {
        let (id, no) = (self.tenant(slug).id, self.tenant(slug).no.get());
        self.source.change(|content| {
            let mut tenant = fake::tenant(slug, no, "gold", "main").expect("a tenant");
            tenant.id = id;
            content.put_tenant(tenant);
        });
    }

    /// Waits until the gateway knows `acme` so.
    pub(crate) async fn seen(&self, is_so: impl Fn(&Route) -> bool) {
        let mut changed = self.catalog.changed();
        while !is_so(&self.tenant("acme")) {
            tokio::time::timeout(LONG, changed.changed()).await.expect("in time").expect("followed");
        }
    }
}

/// An application that answers each request of each connection by what `answer` makes of its bytes. Bodies with a length are read.
pub(crate) struct App {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
}

pub(crate) async fn app<F>(answer: F) -> App
where
    F: Fn(&str) -> String + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listening");
    let addr = listener.local_addr().expect("an address");
    let (connections, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut clients = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&answer);
            clients.spawn(async move {
                let mut client = Wire::new(stream);
                while let Some(request) = client.message().await {
                    let text = answer(&request);
                    if client.stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    App { addr, connections }
}

/// An application that shows what it got: the request's bytes are its answer's body.
pub(crate) async fn echo(name: &'static str) -> App {
    app(move |request| ok(&format!("{name}\n{request}"))).await
}

/// An answer with a length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A connection that reads whole messages.
pub(crate) struct Wire<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).await.expect("connected"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("written");
    }

    /// The next message with its body; `None` at the end.
    pub(crate) async fn message(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
        if field("transfer-encoding").is_some() {
            while !self.buffer[end..].ends_with(b"0\r\n\r\n") {
                self.fill().await?;
            }
            return Some(String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned());
        }
        let length: usize = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while self.buffer.len() < end + length {
            self.fill().await?;
        }
        Some(String::from_utf8_lossy(&self.buffer.drain(..end + length).collect::<Vec<u8>>()).into_owned())
    }

    async fn fill(&mut self) -> Option<()> {
        let n = tokio::time::timeout(LONG, self.stream.read_buf(&mut self.buffer)).await.expect("an end in time").ok()?;
        (n > 0).then_some(())
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &str) -> String {
        self.send(request).await;
        self.message().await.expect("an answer")
    }

    /// Whether the other side closes, without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.fill().await.is_none()
    }
}

/// A request without a body.
pub(crate) fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

/// The status of an answer.
pub(crate) fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}
