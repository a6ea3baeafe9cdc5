//! A gateway in a process of its own that follows a control plane over HTTP, set up as `insula up` sets up its own.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use insula_core::keys::Secret;
use insula_core::token::{ContextKey, ContextKeys};
use insula_gateway::{Config, Listeners};
use insula_telemetry::Shutdown;
use tempfile::TempDir;

/// The argument that makes this program such a gateway.
pub const CHILD: &str = "--door";

/// As long as it takes to load a million tenants on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(300);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The process, its files and its addresses.
pub(super) struct Door {
    child: Child,
    // It ends when this closes.
    _orders: ChildStdin,
    _files: TempDir,
    pub(super) addr: SocketAddr,
    admin: SocketAddr,
}

impl Door {
    /// Follows `control`, and sends to `app` what is for cells that have no application of their own. So many workers; 0 is one a core.
    pub(super) fn start(control: &str, key: &str, app: SocketAddr, workers: usize) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let (key_file, signing_keys) = (files.path().join("key"), files.path().join("signing"));
        std::fs::write(&key_file, key)?;
        std::fs::write(&signing_keys, ContextKeys::new([(0, ContextKey::new(Secret::random()?)?)]).context("a key")?.to_json())?;
        let [addr, admin] = two_free()?;
        let mut config = Config::default();
        config.listen.http = vec![addr];
        config.listen.admin = admin;
        config.listen.workers = workers;
        config.catalog.control_url = Some(control.to_owned());
        config.catalog.key_file = Some(key_file.clone());
        config.catalog.snapshot_file = Some(files.path().join("snapshot"));
        config.telemetry.usage_dir = Some(files.path().join("usage"));
        config.telemetry.control_url = Some(control.to_owned());
        config.telemetry.control_key_file = Some(key_file);
        config.identity.signing_keys = Some(signing_keys);
        config.upstream.default_url = Some(format!("http://{app}"));
        let (child, orders) = child(CHILD, &serde_json::to_string(&config)?)?;
        let mut this = Self { child, _orders: orders, _files: files, addr, admin };
        this.ready()?;
        Ok(this)
    }

    /// Waits until it knows its tenants. Until it has gates, its admin port takes it for ready.
    fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let is_ready = |text: String| text.split(' ').nth(1) == Some("200") && text.contains("\"catalog\":null");
        while !self.admin_says("/readyz").is_ok_and(is_ready) {
            if let Some(ended) = self.child.try_wait()? {
                anyhow::bail!("the gateway ended with {ended}");
            }
            ensure!(Instant::now() < deadline, "the gateway does not get ready");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Seconds since it last heard from the control plane.
    pub(super) fn age(&self) -> Result<f64> {
        let text = self.admin_says("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix("insula_catalog_age_seconds "));
        Ok(line.context("the gateway does not say how old its catalog is")?.trim().parse()?)
    }

    /// Its memory, bytes: proportional set size, and resident set size.
    pub(super) fn memory(&self) -> Result<(u64, u64)> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let of = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).context("the process is not there")?;
            let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
            Ok(kib * 1024)
        };
        Ok((of("Pss:")?, of("Rss:")?))
    }

    /// What it has refused, and why, in the words of its metrics.
    pub(super) fn refusals(&self) -> Result<String> {
        let text = self.admin_says("/metrics")?;
        Ok(text.lines().filter(|line| line.starts_with("insula_admission_refused_total")).collect::<Vec<_>>().join(", "))
    }

    /// An answer of its admin port, head and all.
    fn admin_says(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is such a gateway, until nobody holds the other end of the input.
///
/// # Errors
/// When it cannot start.
pub fn serve() -> Result<()> {
    let (config, closed): (Config, _) = told()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listeners = Listeners::bind(&config.listen)?;
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let stop = shutdown.clone();
        std::thread::spawn(move || {
            closed.wait();
            stop.trigger();
        });
        Ok(insula_gateway::run(config, listeners, shutdown).await?)
    })
}

/// This program as something else, with its orders: a line of JSON at its input.
pub(super) fn child(what: &str, orders: &str) -> Result<(Child, ChildStdin)> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.arg(what).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut input = child.stdin.take().context("a pipe")?;
    writeln!(input, "{orders}")?;
    Ok((child, input))
}

/// The input, once the orders are read.
pub(super) struct Closing(std::io::Stdin);

impl Closing {
    /// Until the other end closes it: whoever has started this process is gone.
    pub(super) fn wait(&self) {
        let mut rest = Vec::new();
        let _ = self.0.lock().read_to_end(&mut rest);
    }
}

/// What this process was told by [`child`].
pub(super) fn told<T: serde::de::DeserializeOwned>() -> Result<(T, Closing)> {
    let (mut line, input) = (String::new(), std::io::stdin());
    input.lock().read_line(&mut line)?;
    Ok((serde_json::from_str(&line)?, Closing(input)))
}

/// Ports that are free now, bound at the same time so that they differ.
pub(super) fn two_free() -> Result<[SocketAddr; 2]> {
    let both = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([both[0].local_addr()?, both[1].local_addr()?])
}
