//! From a router to a process: listener, admin port, signals, a bounded drain.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use insula_telemetry::{Gate, Readiness, Shutdown, admin, logs, parent};
use tokio::net::TcpListener;

use crate::handle::Insula;
use crate::health;

/// How long requests in flight may take once the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the process does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The handle was made without settings.
    #[error("this handle has no settings: use serve_on, or Insula::connect")]
    NoConfig,
    /// Logs, admin port, signals.
    #[error(transparent)]
    Telemetry(#[from] insula_telemetry::Error),
    /// The address is taken or not ours.
    #[error("cannot listen on {addr} (INSULA_LISTEN): {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The worker does not start.
    #[error(transparent)]
    Jobs(#[from] insula_jobs::Error),
    /// The bus of events.
    #[error(transparent)]
    Bus(#[from] crate::events::BusError),
    /// Accepting failed.
    #[error("serving failed: {0}")]
    Serve(std::io::Error),
}

/// Serves the router by the settings of the handle until SIGTERM or SIGINT, then finishes what runs.
///
/// # Errors
/// [`ServeError`], in words for whoever starts the process.
pub async fn serve(app: Router, insula: &Insula) -> Result<(), ServeError> {
    logs::init("app")?;
    parent::die_with_parent()?;
    let config = insula.config().ok_or(ServeError::NoConfig)?;
    let readiness = Readiness::new();
    let (serving, catalog) = (readiness.gate("serving"), readiness.gate("catalog"));
    let _admin = admin::serve_with("app", config.admin_listen, readiness, Some(insula.senses().clone()))?;
    let addr = config.listen;
    let listen = |source| ServeError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(listen)?;
    // Port 0 was another.
    let addr = listener.local_addr().map_err(listen)?;
    let shutdown = Shutdown::on_signals(DRAIN)?;
    tokio::spawn(watch_catalog(insula.clone(), catalog, shutdown.clone()));
    tracing::info!(%addr, "serving");
    serving.open();
    let stopping = shutdown.requested();
    tokio::spawn(async move {
        stopping.await;
        serving.close("stopping");
    });
    let served = serve_on(listener, app, insula, &shutdown).await;
    let senses = insula.senses().clone();
    // It may wait for the control plane, for some seconds. A panic there was reported by its own thread.
    let _ = tokio::task::spawn_blocking(move || senses.close()).await;
    logs::flush();
    served
}

/// Runs jobs and relays events by the settings of the handle until SIGTERM or SIGINT, then waits for what is at work: what an application's role
/// `worker` is.
///
/// # Errors
/// [`ServeError`], in words for whoever starts the process.
pub async fn work(jobs: insula_jobs::Jobs, insula: &Insula, settings: insula_jobs::WorkerConfig) -> Result<(), ServeError> {
    logs::init("worker")?;
    parent::die_with_parent()?;
    let config = insula.config().ok_or(ServeError::NoConfig)?;
    let readiness = Readiness::new();
    let working = readiness.gate("working");
    let _admin = admin::serve_with("worker", config.admin_listen, readiness, Some(insula.senses().clone()))?;
    let shutdown = Shutdown::on_signals(settings.drain)?;
    let worker = insula.worker(jobs, settings)?;
    let relay = insula.relay_if_any().await?;
    working.open();
    tracing::info!("working");
    shutdown.requested().await;
    working.close("stopping");
    worker.stop().await;
    if let Some(relay) = relay {
        relay.stop().await;
    }
    let senses = insula.senses().clone();
    let _ = tokio::task::spawn_blocking(move || senses.close()).await;
    logs::flush();
    Ok(())
}

/// Serves the router on a listener until `shutdown`, then finishes what runs.
///
/// # Errors
/// When accepting fails.
pub async fn serve_on(listener: TcpListener, app: Router, insula: &Insula, shutdown: &Shutdown) -> Result<(), ServeError> {
    let server = axum::serve(listener, service(app, insula)).with_graceful_shutdown(shutdown.requested());
    match shutdown.bound(server.into_future()).await {
        insula_telemetry::drain::Drained::Finished(ended) => ended.map_err(ServeError::Serve),
        insula_telemetry::drain::Drained::CutOff => Ok(()),
    }
}

/// The router with `/healthz` and `/readyz` in front: what [`serve`] serves, for tests that call it without a socket.
pub fn service(app: Router, insula: &Insula) -> Router {
    health::routes(insula).fallback_service(app)
}

/// Keeps the gate as the catalog is.
async fn watch_catalog(insula: Insula, gate: Gate, shutdown: Shutdown) {
    loop {
        // What is known is served however old it is; what must not be opened by old knowledge is refused where it is judged.
        if insula.catalog().is_ready() {
            gate.open();
        } else {
            gate.close("the catalog is not known yet");
        }
        if tokio::time::timeout(Duration::from_secs(1), shutdown.requested()).await.is_ok() {
            return;
        }
    }
}
