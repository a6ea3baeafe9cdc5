//! The admin port: `/healthz`, `/readyz`, `/metrics`, and `/top` and `/slo` where tenants are served, on a thread and a runtime of its own.
//!
//! Of its own, so that it answers while the data path is saturated: an overloaded process that fails its health check is killed, and
//! its load falls on the next. Not for: anything that changes state. `/top` and `/slo` name tenants. Bind it to loopback or to a network that only
//! operators reach; it asks for no credentials.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::time::{Duration, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::build::{self, BuildInfo};
use crate::error::Error;
use crate::meters::{self, Meters};
use crate::readiness::Readiness;
use crate::senses::Senses;

const UPKEEP: Duration = Duration::from_secs(5);

/// The running admin port; stops when dropped.
#[derive(Debug)]
pub struct Admin {
    addr: SocketAddr,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    service: &'static str,
    readiness: Readiness,
    meters: Meters,
    senses: Option<Senses>,
}

/// Serves the admin port of `service` on `addr` (port 0 takes a free one).
///
/// # Errors
/// When the address is taken or not ours, or the thread cannot start.
pub fn serve(service: &'static str, addr: SocketAddr, readiness: Readiness) -> Result<Admin, Error> {
    serve_with(service, addr, readiness, None)
}

/// As [`serve`], with what the process notices of its tenants.
///
/// # Errors
/// As [`serve`].
pub fn serve_with(service: &'static str, addr: SocketAddr, readiness: Readiness, senses: Option<Senses>) -> Result<Admin, Error> {
    let meters = meters::install()?;
    let listen = |source| Error::Listen { addr, source };
    let listener = std::net::TcpListener::bind(addr).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let shared = Shared { service, readiness, meters, senses };
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(run(listener, shared, stopped)) {
                tracing::error!(%error, "the admin port failed");
            }
        })
        .map_err(Error::Thread)?;
    tracing::info!(addr = %bound, "admin port");
    Ok(Admin { addr: bound, stop, thread: Some(thread) })
}

impl Admin {
    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://host:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own thread.
            let _ = thread.join();
        }
    }
}

async fn run(listener: std::net::TcpListener, shared: Shared, stop: CancellationToken) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let meters = shared.meters.clone();
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/top", get(top))
        .route("/slo", get(slo))
        .with_state(shared);
    let server = axum::serve(listener, router).into_future();
    let mut upkeep = tokio::time::interval(UPKEEP);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(server);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = &mut server => return ended,
            _ = upkeep.tick() => meters.upkeep(),
        }
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    service: &'static str,
    pid: u32,
    #[serde(flatten)]
    build: BuildInfo,
}

async fn healthz(State(shared): State<Shared>) -> Json<Health> {
    Json(Health { status: "ok", service: shared.service, pid: std::process::id(), build: build::info() })
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    /// `null` for an open gate, else the reason.
    gates: std::collections::BTreeMap<&'static str, Option<String>>,
}

async fn readyz(State(shared): State<Shared>) -> impl IntoResponse {
    let gates = shared.readiness.gates();
    let ready = gates.values().all(Option::is_none);
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(Ready { ready, gates }))
}

async fn metrics_text(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.meters.render(shared.service))
}

async fn top(State(shared): State<Shared>) -> Result<Json<crate::top::View>, StatusCode> {
    shared.senses.map(|senses| Json(senses.top())).ok_or(StatusCode::NOT_FOUND)
}

async fn slo(State(shared): State<Shared>) -> Result<Json<crate::slo::View>, StatusCode> {
    shared.senses.map(|senses| Json(senses.slo())).ok_or(StatusCode::NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn local() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    async fn get(url: String) -> (u16, String) {
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn it_tells_alive_from_ready() {
        let readiness = Readiness::new();
        let gate = readiness.gate("catalog");
        let admin = serve("test", local(), readiness).unwrap();
        let (status, body) = get(format!("{}/healthz", admin.url())).await;
        assert_eq!(status, 200);
        assert!(body.contains("\"service\":\"test\""), "{body}");
        let (status, body) = get(format!("{}/readyz", admin.url())).await;
        assert_eq!((status, body.as_str()), (503, r#"{"ready":false,"gates":{"catalog":"starting"}}"#));
        gate.open();
        assert_eq!(get(format!("{}/readyz", admin.url())).await.0, 200);
        assert!(get(format!("{}/metrics", admin.url())).await.1.contains("insula_build_info"));
    }

    #[tokio::test]
    async fn it_names_the_heaviest_where_tenants_are_served() {
        let bare = serve("test", local(), Readiness::new()).unwrap();
        assert_eq!(get(format!("{}/top", bare.url())).await.0, 404);
        let admin = serve_with("test", local(), Readiness::new(), Some(Senses::default())).unwrap();
        for path in ["top", "slo"] {
            let (status, body) = get(format!("{}/{path}", admin.url())).await;
            assert!(status == 200 && body.starts_with('{'), "{status} {body}");
        }
    }

    #[test]
    fn it_answers_while_the_data_path_is_saturated() {
        let admin = serve("test", local(), Readiness::new()).unwrap();
        let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
        // The data path: one worker, blocked for as long as the test likes.
        let data = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let blocked = data.spawn(async move { held.recv() });
        let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(client.block_on(get(format!("{}/healthz", admin.url()))).0, 200);
        assert!(!blocked.is_finished());
        release.send(()).unwrap();
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = serve("test", local(), Readiness::new()).unwrap();
        let error = serve("test", first.addr(), Readiness::new()).unwrap_err().to_string();
        assert!(error.contains(&first.addr().to_string()), "{error}");
    }
}
