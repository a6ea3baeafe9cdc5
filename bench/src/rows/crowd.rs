//! A gateway in this process, an application behind it that takes a stated time, and clients that count: for rows about fairness.
//!
//! The gateway is the real one on real sockets; the catalog is in memory. Clients speak plain HTTP/1.1 on connections of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options};
use insula_core::{Plan, Tier};
use insula_gateway::{Config, Listeners};
use insula_telemetry::{Readiness, Senses, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A gateway and its tenants.
pub(super) struct Edge {
    pub(super) addr: SocketAddr,
    shutdown: Shutdown,
    _catalog: Catalog,
}

/// A plan by name, with a weight and limits that do not bind unless changed.
pub(super) fn plan(name: &str, weight: u32) -> Result<Plan> {
    let mut plan = fake::plan(name)?;
    plan.tier = Tier { name: name.into(), weight, ..plan.tier };
    (plan.limits.requests_per_second, plan.limits.request_burst) = (1_000_000, 1_000_000);
    plan.limits.max_concurrent_requests = 10_000;
    Ok(plan)
}

impl Edge {
    /// A gateway before `app`, with tenants (slug, plan).
    pub(super) async fn start(config: Config, app: SocketAddr, plans: Vec<Plan>, tenants: &[(String, String)]) -> Result<Self> {
        let source = FakeSource::new();
        source.change(|content| -> Result<()> {
            plans.into_iter().for_each(|plan| content.put_plan(plan));
            let mut cell = fake::cell("main", "127.0.0.1", 1)?;
            cell.app_url = Some(format!("http://{app}").into());
            content.put_cell(cell);
            content.put_database(fake::database("main", "insula_pool", 1)?);
            for (no, (slug, plan)) in tenants.iter().enumerate() {
                content.put_tenant(fake::tenant(slug, i64::try_from(no)? + 1, plan, "main")?);
            }
            Ok(())
        })?;
        let catalog = Catalog::start(source, Options::default());
        catalog.ready().await;
        let mut config = config;
        config.listen.http = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        config.listen.workers = 2;
        let listeners = Listeners::bind(&config.listen)?;
        let addr = listeners.addrs().first().context("no listener")?.1;
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let serving =
            insula_gateway::serve(config, catalog.clone(), listeners, shutdown.clone(), Readiness::new(), Senses::default());
        tokio::spawn(serving);
        Ok(Self { addr, shutdown, _catalog: catalog })
    }

    pub(super) fn stop(&self) {
        self.shutdown.trigger();
    }
}

/// An application that works on `places` requests at once, each for `time`.
pub(super) async fn app(places: usize, time: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let places = Arc::new(Semaphore::new(places));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).ok();
            let places = Arc::clone(&places);
            tokio::spawn(async move {
                let mut wire = Wire { stream, buffer: Vec::new() };
                while wire.head().await.is_ok() {
                    let place = places.acquire().await;
                    tokio::time::sleep(time).await;
                    drop(place);
                    if wire.stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(addr)
}

/// A connection. Bodies are as short as those above, and problems' are read by their length.
struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// The next head; what follows it stays in the buffer.
    async fn head(&mut self) -> Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Ok(String::from_utf8_lossy(&head).to_ascii_lowercase());
            }
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "closed");
        }
    }

    /// Asks once; the status.
    async fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        let head = self.head().await?;
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(Ok(0), |n| n.trim().parse::<usize>())?;
        while self.buffer.len() < length {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "closed");
        }
        self.buffer.drain(..length);
        head.get(9..12).context("no status")?.parse().context("no status")
    }
}

/// A client of one tenant.
pub(super) struct Client {
    addr: SocketAddr,
    request: Vec<u8>,
}

/// What a client saw of its own schedule.
#[derive(Default)]
pub(super) struct Seen {
    /// Milliseconds from when a request was due to its answer, of requests that were answered with 200.
    pub(super) times: Vec<f64>,
    /// Answers that say "too much" (429).
    pub(super) limited: usize,
    /// Anything else.
    pub(super) errors: usize,
}

impl Client {
    pub(super) fn new(edge: &Edge, slug: &str) -> Self {
        Self { addr: edge.addr, request: format!("GET / HTTP/1.1\r\nhost: {slug}.localhost\r\n\r\n").into_bytes() }
    }

    async fn connect(&self) -> Result<Wire> {
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, buffer: Vec::new() })
    }

    /// Asks again and again on each of some connections, and counts good answers, until told to stop.
    pub(super) fn saturate(self, connections: usize, served: &Arc<AtomicU64>, bad: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) {
        let this = Arc::new(self);
        for _ in 0..connections {
            let (this, served, bad, stop) = (Arc::clone(&this), Arc::clone(served), Arc::clone(bad), Arc::clone(stop));
            tokio::spawn(async move {
                let Ok(mut wire) = this.connect().await else { return };
                while !stop.load(Ordering::Relaxed) {
                    let status = wire.ask(&this.request).await.ok();
                    let count = if status == Some(200) { &served } else { &bad };
                    count.fetch_add(1, Ordering::Relaxed);
                    if status.is_none() {
                        return;
                    }
                }
            });
        }
    }

    /// Asks `rate` times a second for `span`, on schedule whatever the answers: an answer that is late makes the next ones late by its
    /// connection, and their time counts from when they were due.
    pub(super) async fn schedule(self, rate: u32, span: Duration, connections: u32) -> Result<Seen> {
        let this = Arc::new(self);
        let due = Arc::new(AtomicU64::new(0));
        let all = (span.as_secs_f64() * f64::from(rate)) as u64;
        let mut wires = Vec::new();
        for _ in 0..connections {
            wires.push(this.connect().await?);
        }
        let began = Instant::now();
        let tasks: Vec<_> = wires
            .into_iter()
            .map(|mut wire| {
                let (this, due) = (Arc::clone(&this), Arc::clone(&due));
                tokio::spawn(async move {
                    let mut seen = Seen::default();
                    loop {
                        let n = due.fetch_add(1, Ordering::Relaxed);
                        if n >= all {
                            return seen;
                        }
                        let at = began + Duration::from_secs_f64(n as f64 / f64::from(rate));
                        tokio::time::sleep_until(at.into()).await;
                        match wire.ask(&this.request).await {
                            Ok(200) => seen.times.push(at.elapsed().as_secs_f64() * 1e3),
                            Ok(429) => seen.limited += 1,
                            _ => seen.errors += 1,
                        }
                    }
                })
            })
            .collect();
        let mut seen = Seen::default();
        for task in tasks {
            let part = task.await?;
            seen.times.extend(part.times);
            seen.limited += part.limited;
            seen.errors += part.errors;
        }
        Ok(seen)
    }
}
