//! The control plane as a process: opens the catalog, starts the background work, serves the API until told to stop.

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::error::Error;
use crate::handle::Control;
use crate::model::CellState;
use crate::operation::engine::Engine;
use crate::{bundle_apply, cell_prepare, certificate_watch, feed_trim, kit_upgrade, rest, store, warm_pool, webhook};

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
    let served = rest::serve(control.clone(), listener, shutdown).await;
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
    /// Starts the engine and the reconcilers. Cells are prepared in the background: see [`Control::is_ready`].
    ///
    /// # Errors
    /// When the catalog does not take the cells that it is told of.
    pub async fn start(&self) -> Result<Background, Error> {
        let mut conn = self.catalog_pool().acquire().await?;
        for cell in &self.config().cells {
            store::cells::put_running(&mut conn, cell).await?;
        }
        drop(conn);
        self.have_context_key().await?;
        let poster = webhook::poster(self.config())?;
        let tasks = vec![
            tokio::spawn(Engine::run(self.clone())),
            tokio::spawn(Engine::heartbeat(self.clone())),
            tokio::spawn(reconcile(self.clone())),
            tokio::spawn(webhook::run(self.clone(), poster)),
            tokio::spawn(self.clone().watch_queues()),
            tokio::spawn(kit_upgrade::run(self.clone())),
            tokio::spawn(certificate_watch::run(self.clone())),
        ];
        Ok(Background { control: self.clone(), tasks })
    }

    /// Waits until everything that is to be prepared at start is.
    ///
    /// # Errors
    /// [`Error::Away`] when that takes longer than `most`.
    pub async fn wait_ready(&self, most: Duration) -> Result<(), Error> {
        let ready = tokio::time::timeout(most, self.ready_signal()).await;
        ready.map_err(|_| Error::Away("the cells are still being prepared; the control plane's log says how far".into()))
    }
}

impl Background {
    /// Begins nothing more, and leaves what is in hand where any engine can go on with it.
    pub async fn stop(self) {
        self.control.hub().close();
        Engine::stop(&self.control).await;
        for task in self.tasks {
            task.abort();
        }
    }
}

/// Looks for what is to be done, whenever a signal or the clock says so. Takes no input: it sees for itself.
async fn reconcile(control: Control) {
    let stopped = control.engine().stopped();
    let mut prepared = std::collections::BTreeSet::new();
    loop {
        if let Err(error) = reconcile_round(&control, &mut prepared).await {
            tracing::warn!(%error, "a reconciler did not get through; it looks again");
        }
        tokio::select! {
            () = control.reconcile_signal() => {}
            () = tokio::time::sleep(control.config().reconcile_every) => {}
            () = stopped.cancelled() => return,
        }
    }
}

async fn reconcile_round(
    control: &Control,
    prepared: &mut std::collections::BTreeSet<insula_core::CellName>,
) -> Result<(), Error> {
    let cells = store::cells::all(&mut *control.catalog_pool().acquire().await?).await?;
    let mut all = true;
    // Every cell once per process (an upgrade brings a new kit), and each that is new; all at the same time.
    let due = cells.iter().filter(|c| !c.dedicated && matches!(c.state, CellState::Ready | CellState::Draining));
    let due = due.filter(|c| !(prepared.contains(&c.name) && c.kit_way.is_some()));
    let work = due.map(async |cell| (cell, cell_prepare::prepare(control, cell).await));
    for (cell, outcome) in futures_util::future::join_all(work).await {
        match outcome {
            Ok(()) => {
                tracing::info!(cell = %cell.name, "cell prepared");
                prepared.insert(cell.name.clone());
            }
            Err(error) => {
                tracing::warn!(cell = %cell.name, %error, "cannot prepare a cell; trying again");
                all = false;
            }
        }
    }
    if all {
        control.set_ready();
    }
    feed_trim::reconcile(control).await?;
    warm_pool::reconcile(control).await?;
    bundle_apply::reconcile(control).await
}
