//! The applications' workers: a process for each cell, beside the application that serves there.
//!
//! A cell's worker has the key of that cell alone, as its application does: what breaks there, or breaks in, stays there. The one of
//! [`MAIN`] also works for cells that an operator registered and that have no process of ours. Always: no two of our workers serve a cell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use insula_core::CellName;
use tokio::sync::Mutex;

use crate::error::Error;
use crate::up::catalog::HostCatalog;
use crate::up::child::{Child, ChildSpec};
use crate::up::house::{House, MAIN, READY_WITHIN, free_address};

/// Jobs at work may end within this: longer than a worker itself waits for them (`WorkerConfig::drain`), and says how they ended.
const DRAIN: Duration = Duration::from_secs(32);

/// Those that run here.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    at_work: Mutex<At>,
}

#[derive(Debug, Default)]
struct At {
    /// Not before there is something to work on: [`House::begin_work`].
    begun: bool,
    children: BTreeMap<String, Child>,
    /// Cells that [`MAIN`]'s worker leaves to others.
    others: BTreeSet<CellName>,
}

impl House {
    /// From here on cells have workers; these at once. The control plane has brought their databases up to date.
    pub(crate) async fn begin_work(&self, cells: &[CellName], catalog: &HostCatalog) -> Result<(), Error> {
        {
            let mut at = self.workers.at_work.lock().await;
            at.begun = true;
            at.others.extend(cells.iter().filter(|cell| cell.as_str() != MAIN).cloned());
        }
        for cell in cells {
            self.start_worker(cell, catalog).await?;
        }
        Ok(())
    }

    /// Says that a cell has a worker of its own, or will have: before its key is given to anybody.
    pub(crate) async fn has_own_worker(&self, cell: &CellName) {
        if cell.as_str() != MAIN {
            self.workers.at_work.lock().await.others.insert(cell.clone());
        }
    }

    /// Starts a cell's worker, unless it runs or it is too early.
    pub(crate) async fn start_worker(&self, cell: &CellName, catalog: &HostCatalog) -> Result<(), Error> {
        // In this order everywhere.
        let keys = self.keys.lock().await;
        let mut at = self.workers.at_work.lock().await;
        if self.without_workers || !at.begun || at.children.contains_key(cell.as_str()) {
            return Ok(());
        }
        self.write_worker_ring(&keys, &at)?;
        let admin = free_address()?;
        let mut env = vec![
            ("INSULA_CATALOG_URL", catalog.reader_url().to_owned()),
            ("INSULA_KEYRING", self.worker_ring(cell.as_str()).display().to_string()),
            ("INSULA_ADMIN_LISTEN", admin.to_string()),
            ("INSULA_CELL", cell.to_string()),
            ("INSULA_CONTROL_URL", format!("http://{}", self.control)),
            ("INSULA_STORE", self.folder.objects().display().to_string()),
            ("INSULA_CONTROL_KEY_FILE", self.folder.edge_key_file().display().to_string()),
            ("INSULA_USAGE_DIR", self.folder.run(&format!("usage-worker-{cell}")).display().to_string()),
        ];
        env.extend(self.told());
        let spec = ChildSpec {
            role: format!("worker:{cell}"),
            program: self.app_program.clone(),
            args: vec!["worker".into()],
            env: env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            log: self.folder.log(&format!("worker-{cell}")),
            admin_url: format!("http://{admin}"),
            base_url: format!("http://{admin}"),
            drain: DRAIN,
        };
        at.children.insert(cell.to_string(), Child::start(spec, self.roster.clone()));
        Ok(())
    }

    /// Waits until these cells' workers are ready.
    pub(crate) async fn workers_ready(&self, cells: &[CellName]) -> Result<(), Error> {
        let waits: Vec<_> = {
            let at = self.workers.at_work.lock().await;
            cells.iter().filter_map(|cell| Some(at.children.get(cell.as_str())?.readiness())).collect()
        };
        for readiness in waits {
            let outcome = readiness.wait(&self.client, READY_WITHIN).await;
            let with_more = |e: Error| {
                Error::new(e.kind(), e.to_string(), format!("{}\n(an application without jobs: --no-workers)", e.help()))
            };
            outcome.map_err(with_more)?;
        }
        Ok(())
    }

    /// Stops a cell's worker, for good.
    pub(crate) async fn stop_worker(&self, cell: &str) {
        let worker = {
            let mut at = self.workers.at_work.lock().await;
            at.others.retain(|other| other.as_str() != cell);
            at.children.remove(cell)
        };
        if let Some(worker) = worker {
            worker.stop().await;
        }
    }

    /// Stops all of them: nothing new is begun, and what is at work may end.
    pub(crate) async fn stop_workers(&self) {
        let workers = std::mem::take(&mut *self.workers.at_work.lock().await);
        futures_util::future::join_all(workers.children.into_values().map(Child::stop)).await;
    }

    /// Brings the keys of [`MAIN`]'s worker up to date: `all` are those of its application.
    pub(crate) async fn tell_workers(&self, all: &[CellName]) -> Result<(), Error> {
        let at = self.workers.at_work.lock().await;
        if at.begun && !self.without_workers { self.write_worker_ring(all, &at) } else { Ok(()) }
    }

    fn write_worker_ring(&self, all: &[CellName], at: &At) -> Result<(), Error> {
        self.write_ring(&self.worker_ring(MAIN), all.iter().filter(|cell| !at.others.contains(*cell)))
    }

    /// A cell's application and its worker share a file; [`MAIN`]'s application has more keys than its worker.
    fn worker_ring(&self, cell: &str) -> PathBuf {
        if cell == MAIN { self.folder.run("worker-main.keys.json") } else { self.ring_path(cell) }
    }
}
