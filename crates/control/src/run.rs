//! The control plane as a process: opens the catalog, starts the background work, serves the API until told to stop.

use std::future::Future;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::error::Error;
use crate::handle::Control;
use crate::operation::engine::Engine;
use crate::rest;

/// Runs the control plane until `shutdown` resolves; then answers what has begun, lets leases go, and returns.
///
/// # Errors
/// When the catalog cannot be opened, or the listener fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let control = Control::open(config).await?;
    let background = control.start().await?;
    let served = axum::serve(listener, rest::router(control.clone())).with_graceful_shutdown(shutdown).await;
    background.stop().await;
    served.map_err(|source| Error::Io { what: "serving the API".into(), source })
}

/// The work that goes on beside the API.
#[derive(Debug)]
pub struct Background {
    control: Control,
    tasks: Vec<JoinHandle<()>>,
}

impl Control {
    /// Starts the engine and the reconcilers.
    ///
    /// # Errors
    /// When the catalog does not take the cells that it is told of.
    pub async fn start(&self) -> Result<Background, Error> {
        let tasks = vec![tokio::spawn(Engine::run(self.clone())), tokio::spawn(Engine::heartbeat(self.clone()))];
        Ok(Background { control: self.clone(), tasks })
    }
}

impl Background {
    /// Begins nothing more, and leaves what is in hand where any engine can go on with it.
    pub async fn stop(self) {
        Engine::stop(&self.control).await;
        for task in self.tasks {
            task.abort();
        }
    }
}
