//! The settings of a gateway: a TOML file, every field with a default that works but where to listen and where the catalog is.
//!
//! Always: a key that is not known is refused with its line; a secret is named by its file, never written here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use insula_http::{AdmissionConfig, ResolveOptions};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Error;

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Where knowledge of tenants comes from.
    pub catalog: CatalogConfig,
    /// The way to the applications.
    pub upstream: UpstreamConfig,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// How much of anything there may be.
    pub limits: Limits,
    /// Certificates.
    pub tls: TlsConfig,
    /// Whom to believe.
    pub trust: Trust,
    /// How tenants are found.
    pub resolve: ResolveOptions,
    /// How requests are signed for upstream.
    pub identity: IdentityConfig,
    /// What cells admit; what tenants may stands in their plans.
    pub admission: AdmissionConfig,
    /// Limits shared with other gateways.
    pub sharing: SharingConfig,
    /// Requests of tenants on the move.
    pub moves: MoveConfig,
    /// What is noticed of requests, and who is told.
    pub telemetry: TelemetryConfig,
}

/// What is noticed of requests, and who is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// A file of objectives (TOML); without it, all tiers have the default ones.
    pub objectives_file: Option<PathBuf>,
    /// A folder of this process's own, in which usage waits until it is sent; without it, requests are not billed.
    pub usage_dir: Option<PathBuf>,
    /// The control plane, `http://HOST:PORT` or `https://HOST`: takes usage.
    pub control_url: Option<String>,
    /// A file with a key of scope `edge` of that control plane.
    pub control_key_file: Option<PathBuf>,
    /// For `https`: a file (PEM) of the authorities whose certificates are believed there, and no others; without it, those of the web.
    pub control_authorities: Option<PathBuf>,
}

/// Limits shared with other gateways. Without a server, this gateway holds tenants to their plans alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SharingConfig {
    /// A file that holds the address of a Redis or Valkey server: `redis://[:PASSWORD@]HOST:PORT`.
    pub redis_url_file: Option<PathBuf>,
    /// Gateways of one namespace share.
    pub namespace: String,
    /// How many gateways there are, for as long as the server has not said so: this one lets through its fraction of a plan.
    pub gateways: u32,
}

impl Default for SharingConfig {
    fn default() -> Self {
        Self { redis_url_file: None, namespace: "insula".into(), gateways: 1 }
    }
}

/// Requests of tenants on the move: at cutover, writes wait.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MoveConfig {
    /// Longest wait, milliseconds.
    pub hold_ms: u64,
    /// Requests that may wait, a worker.
    pub held: usize,
    /// Requests of one tenant that may wait, a worker.
    pub held_per_tenant: usize,
}

impl Default for MoveConfig {
    fn default() -> Self {
        Self { hold_ms: 5_000, held: 2_048, held_per_tenant: 512 }
    }
}

/// Where to listen.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Clear HTTP/1.1 and HTTP/2 with prior knowledge.
    pub http: Vec<SocketAddr>,
    /// TLS, with the certificates of `[tls]`.
    pub https: Vec<SocketAddr>,
    /// Health and metrics, for operators alone.
    pub admin: SocketAddr,
    /// Threads, each with a runtime, listeners and upstream connections of its own; 0 is one a core.
    pub workers: usize,
    /// Connections that the kernel keeps until they are accepted, a listener.
    pub backlog: u32,
    /// A socket's path: a gateway that is started while another with the same path runs gets its sockets, and the other drains. Only the
    /// gateway's own account may enter its folder.
    pub succession: Option<PathBuf>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            http: Vec::new(),
            https: Vec::new(),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers: 0,
            backlog: 4096,
            succession: None,
        }
    }
}

impl Listen {
    /// How many threads.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}

/// Where knowledge of tenants comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogConfig {
    /// The control plane, `http://HOST:PORT` or `https://HOST`: the gateway follows its stream of changes.
    pub control_url: Option<String>,
    /// For `https`: a file (PEM) of the authorities whose certificates are believed there, and no others; without it, those of the web.
    pub control_authorities: Option<PathBuf>,
    /// A file that holds a key of scope `edge` for it.
    pub key_file: Option<PathBuf>,
    /// Instead of the control plane: a file that holds the URL of the catalog's database, for its reader.
    pub postgres_url_file: Option<PathBuf>,
    /// Where what is known is kept, to start from when the control plane is away. Its folder must be there; only the gateway
    /// should read it.
    pub snapshot_file: Option<PathBuf>,
    /// Knowledge that is older is worth a warning, milliseconds.
    pub soft_ms: u64,
    /// Knowledge that is older does not open what must be closed: keys are refused; everything else is served, milliseconds.
    pub hard_ms: u64,
    /// Tenants answer at `SLUG.` before it.
    pub base_domain: String,
}

impl CatalogConfig {
    /// What stands in the file of the control plane's authorities.
    pub(crate) fn authorities(&self) -> Result<Option<Vec<u8>>, String> {
        let read = |file: &PathBuf| std::fs::read(file).map_err(|e| format!("control_authorities: {}: {e}", file.display()));
        self.control_authorities.as_ref().map(read).transpose()
    }
}

impl Default for CatalogConfig {
    fn default() -> Self {
        Self {
            control_url: None,
            control_authorities: None,
            key_file: None,
            postgres_url_file: None,
            snapshot_file: None,
            soft_ms: 10_000,
            hard_ms: 300_000,
            base_domain: "localhost".into(),
        }
    }
}

/// The way to the applications.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamConfig {
    /// Serves the tenants of cells that have no application of their own: `http://HOST:PORT`.
    pub default_url: Option<String>,
    /// Serves what is sent to the hosts of the host side (`[resolve] host_side`): `http://HOST:PORT`.
    pub host_side_url: Option<String>,
    /// Idle connections kept, an upstream and worker.
    pub idle_connections: usize,
    /// Protocols that a connection may be upgraded to. Whatever passes through such a tunnel is not looked at.
    pub upgrades: Vec<String>,
    /// The share of requests that may be sent again.
    pub retry_share: f32,
    /// What is asked of an application that stands beside others, to see whether it is well.
    pub health_path: String,
    /// How often, milliseconds; to a tenth of a second.
    pub health_every_ms: u64,
}

/// How requests are signed for upstream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// The file of the signing keys; read again when it changes. Without it nothing is signed: applications must find the tenant themselves.
    pub signing_keys: Option<PathBuf>,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            default_url: None,
            host_side_url: None,
            idle_connections: 512,
            upgrades: vec!["websocket".into()],
            retry_share: 0.1,
            health_path: "/healthz".into(),
            health_every_ms: 2_000,
        }
    }
}

/// How long anything may take, in milliseconds; each is kept to a tenth of a second.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its head.
    pub header_ms: u64,
    /// From a request's head to the end of its body.
    pub request_ms: u64,
    /// Connecting to an upstream.
    pub connect_ms: u64,
    /// From the end of a request to the head of its answer.
    pub response_ms: u64,
    /// Between two pieces of an answer's body from upstream.
    pub stream_ms: u64,
    /// Between two pieces that the client takes.
    pub send_ms: u64,
    /// A client's connection without a request.
    pub idle_ms: u64,
    /// An upstream connection without a request. Shorter than the application's own: who closes first loses nothing.
    pub upstream_idle_ms: u64,
    /// A tunnel (WebSocket) in which nothing moves.
    pub tunnel_ms: u64,
    /// Requests in flight may end within this once the gateway is asked to stop.
    pub drain_ms: u64,
    /// While draining, how long an idle connection is given to send one more request, which is answered with `Connection: close`.
    pub linger_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header_ms: 10_000,
            request_ms: 300_000,
            connect_ms: 1_000,
            response_ms: 30_000,
            stream_ms: 300_000,
            send_ms: 30_000,
            idle_ms: 75_000,
            upstream_idle_ms: 30_000,
            tunnel_ms: 600_000,
            drain_ms: 10_000,
            linger_ms: 2_000,
        }
    }
}

/// How much of anything there may be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's head as HTTP/1.1 writes it; of a list of HTTP/2 (RFC 9113, section 10.5.1), which counts 32 more for each field.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// Clients' connections, a worker.
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_bytes: 32 << 10, headers: 100, connections: 20_000, streams: 128 }
    }
}

/// Certificates.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// A folder of `NAME.crt` (a chain, PEM) and `NAME.key` (PEM): `acme.example.com`, `_.example.com` for `*.example.com`, and `default` for
    /// clients that name no host, or another. Files are read again when they change.
    pub certificates: Option<PathBuf>,
    /// A file with the key that opens the private keys of the catalog's certificates (`insula key certificates`). With it, certificates that were put
    /// with `insula certificate put` are used for names that the folder has none for, some seconds after they were put.
    pub catalog_key_file: Option<PathBuf>,
    /// Where the catalog's certificates are kept, their keys sealed, to start from when the control plane is away.
    pub catalog_copy: Option<PathBuf>,
}

impl TlsConfig {
    /// Whether there is a source of certificates.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.certificates.is_some() || self.catalog_key_file.is_some()
    }
}

/// Whom to believe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// Networks of proxies in front, whose `Forwarded`, `X-Forwarded-*` and `X-Request-Id` are believed.
    pub proxies: Vec<IpNet>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// With the line and what is known there, when it cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bad = |what: String| Error::Config { path: path.to_owned(), what };
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let config: Self = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if config.listen.http.is_empty() && config.listen.https.is_empty() {
            return Err(bad("[listen] names no address, neither http nor https".into()));
        }
        if !config.listen.https.is_empty() && !config.tls.is_set() {
            return Err(bad("[listen] https needs [tls] certificates or catalog_key_file".into()));
        }
        Ok(config)
    }
}

/// A number of milliseconds.
pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path())
    }

    #[test]
    fn a_short_file_will_do() {
        let config = read("[listen]\nhttp = ['127.0.0.1:8080']\n[trust]\nproxies = ['10.0.0.0/8']").unwrap();
        assert_eq!((config.timeouts.header_ms, config.trust.proxies.len()), (10_000, 1));
        assert!(config.listen.worker_count() > 0);
    }

    #[test]
    fn a_fault_is_shown_with_its_line() {
        let says = read("[listen]\nhttp = ['127.0.0.1:8080']\nworker = 3").unwrap_err().to_string();
        assert!(says.contains("line 3") && says.contains("`workers`"), "{says}");
        assert!(read("").unwrap_err().to_string().contains("[listen]"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut config = Config::default();
        config.listen.http.push(SocketAddr::from(([127, 0, 0, 1], 80)));
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::to_string(&read(&text).unwrap()).unwrap(), text);
    }
}
