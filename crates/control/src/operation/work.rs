//! An operation in hand: its input and memo, the catalog transaction that will record it, and the cell's transaction
//! that it holds open across steps.
//!
//! Always: dropping it rolls both transactions back; [`Work::settle`] commits the cell's before the catalog may say so.

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{PgConnection, PgTransaction};
use uuid::Uuid;

use super::record::{self, Standing};
use super::step::Saga;
use crate::cells::CellTx;
use crate::error::Error;
use crate::handle::Control;
use crate::store::{self, plans};

/// The row of an operation, as the engine that holds its lease knows it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: Uuid,
    pub(crate) tenant: Option<Uuid>,
    /// Idempotency key, with its actor.
    pub(crate) key: Option<String>,
    pub(crate) actor: String,
    pub(crate) input: Value,
    pub(crate) memo: Value,
    pub(crate) output: Option<Value>,
    pub(crate) undoing: bool,
    pub(crate) steps_done: usize,
    pub(crate) attempts: i32,
    pub(crate) error: Option<Value>,
}

/// One thing to be recorded.
pub(crate) struct Event {
    pub(crate) at: DateTime<Utc>,
    pub(crate) step: &'static str,
    pub(crate) what: &'static str,
    pub(crate) detail: String,
}

/// One line for the audit log.
pub(crate) struct Deed {
    pub(crate) action: &'static str,
    pub(crate) target: String,
    pub(crate) detail: Value,
}

/// See the module.
pub(crate) struct Work {
    pub(crate) control: Control,
    pub(crate) saga: &'static Saga,
    pub(crate) job: Job,
    pub(crate) events: Vec<Event>,
    /// Audit lines, appended last before the commit: the log's head is locked from then on.
    pub(crate) deeds: Vec<Deed>,
    /// Whether the row exists yet: not while it is being submitted.
    pub(crate) recorded: bool,
    /// When it came into this hand.
    pub(crate) since: Instant,
    catalog: Option<PgTransaction<'static>>,
    cell: Option<CellTx>,
    /// Steps done and memo as they were last committed.
    saved: (usize, Value),
}

impl Work {
    pub(crate) fn new(control: Control, saga: &'static Saga, job: Job, recorded: bool) -> Self {
        let saved = (job.steps_done, job.memo.clone());
        Self {
            control,
            saga,
            job,
            events: Vec::new(),
            deeds: Vec::new(),
            recorded,
            since: Instant::now(),
            catalog: None,
            cell: None,
            saved,
        }
    }

    /// The transaction that will record this step.
    pub(crate) async fn catalog(&mut self) -> Result<&mut PgConnection, Error> {
        if self.catalog.is_none() {
            self.catalog = Some(self.control.catalog_pool().begin().await?);
        }
        self.catalog.as_deref_mut().ok_or_else(|| Error::Corrupt("no catalog transaction".into()))
    }

    /// The cell's transaction, when one is open.
    pub(crate) fn cell(&mut self) -> Option<&mut PgConnection> {
        self.cell.as_mut().map(CellTx::conn)
    }

    /// Keeps a cell's transaction open for the steps to come.
    pub(crate) fn hold(&mut self, cell: CellTx) {
        self.cell = Some(cell);
    }

    /// Commits the cell's transaction.
    pub(crate) async fn settle(&mut self) -> Result<(), Error> {
        match self.cell.take() {
            Some(cell) => cell.commit().await,
            None => Ok(()),
        }
    }

    /// Commits the cell's transaction, then the catalog's with the record of all steps since the last time.
    pub(crate) async fn flush(&mut self, standing: Standing) -> Result<(), Error> {
        self.settle().await?;
        self.catalog().await?;
        let Some(mut tx) = self.catalog.take() else { return Ok(()) };
        let owner = &self.control.config().name;
        if self.recorded {
            record::save(&mut tx, owner, self.saga, &self.job, standing).await?;
        } else if !record::insert(&mut tx, owner, self.saga, &self.job, standing).await? {
            return Err(Error::Repeated);
        }
        record::events(&mut tx, self.job.id, &self.events).await?;
        for deed in &self.deeds {
            store::audit::append(&mut tx, &self.job.actor, deed.action, self.job.tenant, &deed.target, &deed.detail).await?;
        }
        tx.commit().await?;
        self.deeds.clear();
        self.events.clear();
        self.recorded = true;
        self.saved = (self.job.steps_done, self.job.memo.clone());
        Ok(())
    }

    /// Whether the catalog has writes of this operation that are not committed.
    pub(crate) const fn dirty(&self) -> bool {
        self.catalog.is_some()
    }

    /// Rolls back what is not committed, and stands again where that was.
    pub(crate) fn discard(&mut self) {
        self.catalog = None;
        self.cell = None;
        self.events.clear();
        self.deeds.clear();
        (self.job.steps_done, self.job.memo) = self.saved.clone();
        self.job.output = None;
    }

    pub(crate) fn event(&mut self, step: &'static str, what: &'static str, detail: impl Into<String>) {
        self.events.push(Event { at: Utc::now(), step, what, detail: detail.into() });
    }

    pub(crate) fn input<T: DeserializeOwned>(&self) -> Result<T, Error> {
        plans::json("operation's input", self.job.input.clone())
    }

    pub(crate) fn memo<T: DeserializeOwned>(&self) -> Result<T, Error> {
        plans::json("operation's memo", self.job.memo.clone())
    }

    /// Leaves something for later steps; never a secret.
    pub(crate) fn remember<T: Serialize>(&mut self, memo: &T) -> Result<(), Error> {
        self.job.memo = plans::to_json(memo)?;
        Ok(())
    }
}
