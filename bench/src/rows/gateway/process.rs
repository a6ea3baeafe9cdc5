//! Programs on cores of their own: nginx on both sides, wrk as the load.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::slug;

/// A server that is killed when this is dropped.
pub(super) struct Pinned {
    child: Child,
    pub(super) addr: SocketAddr,
}

impl Pinned {
    /// Starts a command that listens on `addr`, and waits until it does.
    pub(super) fn start(mut command: Command, addr: SocketAddr) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().with_context(|| format!("{command:?}"))?;
        let this = Self { child, addr };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(addr).is_err() {
            ensure!(Instant::now() < deadline, "{command:?} does not listen on {addr}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(this)
    }

    /// CPU time of it and its children so far.
    pub(super) fn cpu_seconds(&self) -> f64 {
        crate::load::cpu_ticks(self.child.id()) as f64 / 100.0
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // nginx takes its workers along only when asked politely.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// nginx, as configured for the comparison.
pub(super) mod nginx {
    use super::*;
    use crate::rows::gateway::free;

    /// Answers a few bytes.
    pub(in crate::rows::gateway) fn backend(folder: &Path, workers: usize, cpus: &str) -> Result<Pinned> {
        let addr = free()?;
        let http = format!("server {{ listen {addr} reuseport backlog=4096; location / {{ return 200 \"ok\\n\"; }} }}");
        start(folder, "backend", workers, cpus, addr, &http)
    }

    /// Forwards, with a limit by tenant that the load stays below.
    pub(in crate::rows::gateway) fn proxy(folder: &Path, workers: usize, cpus: &str, upstream: SocketAddr) -> Result<Pinned> {
        let addr = free()?;
        let http = format!(
            "limit_req_zone $http_x_tenant zone=tenants:16m rate=1000000r/s;
             upstream cell {{ server {upstream}; keepalive 512; keepalive_requests 100000000; }}
             server {{ listen {addr} reuseport backlog=4096;
                 location / {{
                     limit_req zone=tenants burst=100000 nodelay; limit_req_status 429;
                     proxy_pass http://cell; proxy_http_version 1.1; proxy_set_header Connection \"\";
                 }} }}"
        );
        start(folder, &format!("proxy-{workers}"), workers, cpus, addr, &http)
    }

    fn start(folder: &Path, name: &str, workers: usize, cpus: &str, addr: SocketAddr, http: &str) -> Result<Pinned> {
        let home = folder.join(format!("{name}-{}", addr.port()));
        std::fs::create_dir_all(&home)?;
        let home = home.display();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = kinds.iter().map(|kind| format!("{kind}_temp_path {home}/{kind};\n")).collect();
        let text = format!(
            "worker_processes {workers}; daemon off; pid {home}/pid; error_log {home}/error.log warn;
             events {{ worker_connections 8192; }}
             http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 300s; default_type text/plain;
             {temporary}{http} }}"
        );
        let config = folder.join(format!("{name}.conf"));
        std::fs::write(&config, text)?;
        let mut command = Command::new("taskset");
        command.args(["-c", cpus, "nginx", "-c"]).arg(&config).arg("-e").arg(format!("{home}/error.log"));
        Pinned::start(command, addr)
    }
}

/// A closed loop.
pub(super) struct Wrk<'a> {
    pub(super) script: &'a Path,
    pub(super) connections: usize,
    pub(super) cpus: &'a str,
}

/// What came of it.
pub(super) struct Done {
    pub(super) requests: f64,
    pub(super) rate: f64,
}

impl Wrk<'_> {
    pub(super) fn run(&self, addr: SocketAddr, slice: Duration) -> Result<Done> {
        let mut command = Command::new("taskset");
        command.args(["-c", self.cpus, "wrk", "-t", "1", "-c", &self.connections.to_string()]);
        command.args(["-d", &format!("{}s", slice.as_secs()), "-s"]).arg(self.script).arg(format!("http://{addr}"));
        let output = command.output().context("cannot run wrk: is it installed?")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let figures: Vec<f64> = line.unwrap_or_default().split(' ').filter_map(|figure| figure.parse().ok()).collect();
        let [requests, rate, errors] = figures.as_slice() else { anyhow::bail!("wrk said {text}") };
        ensure!(*errors == 0.0, "{errors} of {requests} requests failed");
        Ok(Done { requests: *requests, rate: *rate })
    }
}

/// Each tenant in turn; both proxies read what they need: ours the host, nginx the header.
pub(super) fn script(tenants: usize) -> String {
    let first = slug(0);
    let stem = first.trim_end_matches('0');
    format!(
        "local requests, i = {{}}, 0
function init(args)
  for k = 1, {tenants} do
    local slug = string.format(\"{stem}%06d\", k - 1)
    requests[k] = wrk.format(\"GET\", \"/x\", {{ [\"Host\"] = slug .. \".localhost\", [\"X-Tenant\"] = slug }})
  end
end
function request() i = i % {tenants} + 1; return requests[i] end
function done(s, l, r)
  local errors = s.errors.status + s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout
  io.write(string.format(\"RESULT %d %f %d\\n\", s.requests, s.requests / s.duration * 1e6, errors))
end
"
    )
}
