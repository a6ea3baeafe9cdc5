//! Which processes run, for the ready file that other programs read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::error::Error;
use crate::up::folder::write_secret;

/// The ready file, as the contract of `insula up` has it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Ready {
    pub(crate) control_url: String,
    pub(crate) gateway_url: String,
    pub(crate) admin_key: String,
    pub(crate) catalog_dsn: String,
    pub(crate) cells: Vec<ReadyCell>,
    pub(crate) processes: Vec<ReadyProcess>,
}

/// A cell's database server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReadyCell {
    pub(crate) name: String,
    /// Logs in as the application's role.
    pub(crate) app_dsn: String,
    /// Logs in as the host side.
    pub(crate) owner_dsn: String,
}

/// A process.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReadyProcess {
    pub(crate) role: String,
    pub(crate) pid: i32,
    pub(crate) admin_url: Option<String>,
}

/// Keeps the ready file true while processes come and go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    processes: BTreeMap<String, (i32, Option<String>)>,
    cells: BTreeMap<String, ReadyCell>,
    published: Option<(Ready, Vec<PathBuf>)>,
}

impl Roster {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        // Every change below leaves the maps whole, whatever panicked meanwhile.
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A process runs (again).
    pub(crate) fn process(&self, role: &str, pid: i32, admin_url: Option<&str>) {
        self.with(|inner| {
            inner.processes.insert(role.to_owned(), (pid, admin_url.map(str::to_owned)));
            inner.rewrite();
        });
    }

    /// A process is gone for good.
    pub(crate) fn without_process(&self, role: &str) {
        self.with(|inner| {
            inner.processes.remove(role);
            inner.rewrite();
        });
    }

    /// A cell's server can be reached.
    pub(crate) fn cell(&self, cell: ReadyCell) {
        self.with(|inner| {
            inner.cells.insert(cell.name.clone(), cell);
            inner.rewrite();
        });
    }

    /// A cell is gone.
    pub(crate) fn without_cell(&self, name: &str) {
        self.with(|inner| {
            inner.cells.remove(name);
            inner.rewrite();
        });
    }

    /// Everything is ready: the files appear.
    pub(crate) fn publish(&self, ready: Ready, files: Vec<PathBuf>) -> Result<(), Error> {
        self.with(|inner| {
            inner.published = Some((ready, files));
            inner.write()
        })
    }

    /// The end: the files go.
    pub(crate) fn withdraw(&self) {
        self.with(|inner| {
            for file in inner.published.take().into_iter().flat_map(|(_, files)| files) {
                let _ = std::fs::remove_file(file);
            }
        });
    }
}

impl Inner {
    fn rewrite(&self) {
        if let Err(error) = self.write() {
            tracing::warn!(%error, "the ready file is out of date");
        }
    }

    fn write(&self) -> Result<(), Error> {
        let Some((ready, files)) = &self.published else { return Ok(()) };
        let mut ready = ready.clone();
        ready.cells = self.cells.values().cloned().collect();
        let process = |(role, (pid, admin_url)): (&String, &(i32, Option<String>))| ReadyProcess {
            role: role.clone(),
            pid: *pid,
            admin_url: admin_url.clone(),
        };
        ready.processes = self.processes.iter().map(process).collect();
        // The first of each kind is the one that readers mean when they name none: that of the cell `main`.
        ready
            .processes
            .sort_by_key(|p| (p.role.split(':').next().map(str::to_owned), !p.role.ends_with(":main"), p.role.clone()));
        let text = serde_json::to_string_pretty(&ready).unwrap_or_default();
        files.iter().try_for_each(|file| write_secret(file, &format!("{text}\n")))
    }
}
