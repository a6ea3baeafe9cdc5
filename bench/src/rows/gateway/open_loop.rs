//! Requests at a fixed rate, whatever comes back: latency counts from the moment at which a request was due, so that a stall is paid by all
//! who would have come meanwhile (Tene, "How NOT to Measure Latency").
//!
//! One thread that never sleeps, on a core of its own: a timer's tick would be longer than what is measured.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::slug;

const CONNECTIONS: usize = 32;

/// What is sent before it counts: connections are new then.
const WARM: Duration = Duration::from_millis(100);

/// Latencies in microseconds, in order.
#[derive(Default)]
pub(super) struct Seen(Vec<f64>);

impl Seen {
    fn of(mut latencies: Vec<f64>) -> Self {
        latencies.sort_by(f64::total_cmp);
        Self(latencies)
    }

    pub(super) fn add(&mut self, other: Self) {
        *self = Self::of([std::mem::take(&mut self.0), other.0].concat());
    }

    pub(super) fn quantile(&self, q: f64) -> f64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
        let place = (self.0.len() as f64 * q) as usize;
        self.0.get(place).copied().unwrap_or(f64::INFINITY)
    }
}

struct Connection {
    stream: TcpStream,
    due: Instant,
    got: Vec<u8>,
}

/// Sends `rate` requests a second for so long, and for a moment before, which does not count.
pub(super) fn run(addr: SocketAddr, rate: u32, tenants: usize, slice: Duration, cpus: &str) -> Result<Seen> {
    let cpus = cpus.to_owned();
    let thread = std::thread::spawn(move || {
        let mut set = CpuSet::new();
        for cpu in cpus.split(',').filter_map(|text| text.parse().ok()) {
            set.set(cpu)?;
        }
        sched_setaffinity(Pid::from_raw(0), &set)?;
        drive(addr, rate, tenants, slice)
    });
    thread.join().map_err(|_| anyhow::anyhow!("the generator panicked"))?
}

fn drive(addr: SocketAddr, rate: u32, tenants: usize, slice: Duration) -> Result<Seen> {
    let requests: Vec<String> =
        (0..tenants).map(|n| format!("GET /x HTTP/1.1\r\nHost: {0}.localhost\r\nX-Tenant: {0}\r\n\r\n", slug(n))).collect();
    let mut free = VecDeque::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        free.push_back(Connection { stream, due: Instant::now(), got: Vec::with_capacity(1024) });
    }
    let gap = Duration::from_secs(1) / rate;
    let begin = Instant::now();
    let (mut busy, mut seen): (Vec<Connection>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut next = begin;
    let (counts, end) = (begin + WARM, begin + WARM + slice);
    let mut turn = requests.iter().cycle();
    while next < end || !busy.is_empty() {
        let now = Instant::now();
        ensure!(now < end + Duration::from_secs(5), "{} requests are without an answer", busy.len());
        if next <= now
            && next < end
            && let Some(mut connection) = free.pop_front()
        {
            let request = turn.next().context("no tenants")?;
            // A request is far smaller than a socket's buffer.
            connection.stream.write_all(request.as_bytes())?;
            connection.due = next;
            next += gap;
            busy.push(connection);
        }
        let mut n = 0;
        while n < busy.len() {
            if read(&mut busy[n])? {
                let connection = busy.swap_remove(n);
                if connection.due >= counts {
                    seen.push(connection.due.elapsed().as_secs_f64() * 1e6);
                }
                free.push_back(connection);
            } else {
                n += 1;
            }
        }
    }
    Ok(Seen::of(seen))
}

/// Whether the answer is whole.
fn read(connection: &mut Connection) -> Result<bool> {
    let mut buffer = [0; 2048];
    match connection.stream.read(&mut buffer) {
        Ok(0) => anyhow::bail!("the proxy has closed a connection"),
        Ok(n) => connection.got.extend_from_slice(&buffer[..n]),
        Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
        Err(e) => return Err(e.into()),
    }
    let is_whole = connection.got.ends_with(b"\r\n\r\nok\n");
    if is_whole {
        ensure!(connection.got.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&connection.got));
        connection.got.clear();
    }
    Ok(is_whole)
}
