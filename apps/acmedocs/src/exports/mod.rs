//! Batch exports: all documents of a workspace as one zip file, made by a job, kept for a day, downloaded by a link that expires.
//!
//! For: asking for one, how far it is, its end. Not for: making it ([`job`]), the file's format ([`archive`]) and what is left in the end ([`forget`]).
//! Always: a row is "done" exactly when its file is in the store, whole. How many run at once is the plan's affair, and the queue's.

pub(crate) mod archive;
pub mod forget;
pub mod job;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use insula::jobs::{self, Enqueue};
use insula::{Error, Kind, Problem, Result, Tenant, TenantTx};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::FromRow;
use uuid::Uuid;

use crate::features::EXPORTS;

/// Exports that may wait and run in a workspace; what the plan says is how many of them run.
pub const MOST_UNFINISHED: usize = 10;
/// Files that are kept in a workspace; the oldest go first.
pub const MOST_KEPT: i64 = 10;
/// How long a file is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long an export is remembered, at least.
pub const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a link is good.
const LINK: TimeDelta = TimeDelta::minutes(15);

/// How a file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A zip file with a file for each document, and an index.
    #[default]
    Zip,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct New {
    /// How the file is to be written.
    pub format: Format,
}

/// Where an export stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// For a place, or to be tried again.
    Waiting,
    /// At work.
    Running,
    /// Its file is there.
    Done,
    /// It was tried as often as is of use.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
    /// Its file was there, and is gone.
    Expired,
}

impl State {
    /// As people read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether it may still come to something.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

/// How far an export is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Documents written.
    pub documents: i64,
    /// Documents that there were when it began.
    pub of: i64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Progress {
    /// 0 to 100.
    #[must_use]
    pub fn percent(&self) -> i64 {
        (self.documents.saturating_mul(100) / self.of.max(1)).clamp(0, 100)
    }
}

/// An export.
#[derive(Clone, Debug, Serialize)]
pub struct Export {
    /// Identity.
    pub id: Uuid,
    /// How its file is written.
    pub format: Format,
    /// Where it stands.
    pub state: State,
    /// How far it is, once it has begun.
    pub progress: Option<Progress>,
    /// Who asked for it, when that user is still there.
    pub requested_by: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Until when its file is kept.
    pub expires_at: Option<DateTime<Utc>>,
    /// Where its file is, for a quarter of an hour from now: whoever has the link has the file.
    pub download: Option<String>,
}

#[derive(Clone, FromRow)]
struct Row {
    id: Uuid,
    outcome: Option<String>,
    requested_by: Option<String>,
    documents: Option<i64>,
    bytes: Option<i64>,
    created_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
}

const ROWS: &str = "SELECT e.id, e.outcome, u.email AS requested_by, e.documents, e.bytes, e.created_at, e.ended_at, e.expires_at
    FROM exports e LEFT JOIN users u ON u.id = e.requested_by";

/// Asks for an export. It exists, and its job with it, when the transaction commits.
///
/// # Errors
/// `Denied` when the plan has no exports; `Limited` when too many are not over yet.
pub async fn request(tx: &mut TenantTx, tenant: &Tenant, user: Uuid, new: New) -> Result<Export> {
    tenant.require(&EXPORTS)?;
    room(tx, tenant).await?;
    let id = jobs::enqueue(tx, &job::WriteExport { format: new.format }, &Enqueue::default()).await?;
    let id = id.ok_or_else(|| Error::internal("a job without a key was refused"))?;
    sqlx::query("INSERT INTO exports (id, format, requested_by) VALUES ($1, 'zip', $2)")
        .bind(id)
        .bind(user)
        .execute(&mut *tx)
        .await?;
    // Whatever becomes of it, in the end nothing of it is left in the store.
    forget::later(tx).await?;
    read(tx, tenant, id).await
}

/// Waiting files cost little, but not nothing. Those whose job came to nothing are written off here.
async fn room(tx: &mut TenantTx, tenant: &Tenant) -> Result<()> {
    let sql = format!("{ROWS} WHERE e.outcome IS NULL ORDER BY e.id LIMIT {MOST_UNFINISHED}");
    let open: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *tx).await?;
    if open.len() < MOST_UNFINISHED {
        return Ok(());
    }
    if write_off(tx, tenant, open).await? > 0 {
        return Ok(());
    }
    let text = format!("{MOST_UNFINISHED} exports wait or run already: wait for one of them, or cancel it.");
    Err(Error::problem(Kind::Limited, Problem::new(Kind::Limited).detail(text).retry_after(Duration::from_secs(30))))
}

/// Ends those whose job came to nothing; how many.
async fn write_off(tx: &mut TenantTx, tenant: &Tenant, open: Vec<Row>) -> Result<u64> {
    let mut settled = 0;
    for row in open {
        let id = row.id;
        if stand(tx, tenant, row).await?.state == State::Failed {
            let write_off = "UPDATE exports SET outcome = 'failed', ended_at = now() WHERE id = $1 AND outcome IS NULL";
            settled += sqlx::query(write_off).bind(id).execute(&mut *tx).await?.rows_affected();
        }
    }
    Ok(settled)
}

/// The newest exports (index `exports_pkey`: ids sort by time).
///
/// # Errors
/// As the database says.
pub async fn list(tx: &mut TenantTx, tenant: &Tenant) -> Result<Vec<Export>> {
    let sql = format!("{ROWS} ORDER BY e.id DESC LIMIT 30");
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *tx).await?;
    let mut exports = Vec::with_capacity(rows.len());
    for row in rows {
        exports.push(stand(tx, tenant, row).await?);
    }
    Ok(exports)
}

/// One export.
///
/// # Errors
/// `NotFound`.
pub async fn read(tx: &mut TenantTx, tenant: &Tenant, id: Uuid) -> Result<Export> {
    let row = row(tx, id).await?.ok_or_else(Error::not_found)?;
    stand(tx, tenant, row).await
}

async fn row(tx: &mut TenantTx, id: Uuid) -> Result<Option<Row>> {
    let sql = format!("{ROWS} WHERE e.id = $1");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(&mut *tx).await?)
}

/// Where it stands: as its row says, or while that says nothing, as the queue does.
async fn stand(tx: &mut TenantTx, tenant: &Tenant, mut found: Row) -> Result<Export> {
    let mut job = None;
    if found.outcome.is_none() {
        job = jobs::state(tx, found.id).await?;
        // It ended between the two looks, and said so in its row first.
        if !job.as_ref().is_some_and(|job| ["waiting", "later", "running"].contains(&job.state.as_str())) {
            found = row(tx, found.id).await?.unwrap_or(found);
        }
    }
    let state = match (found.outcome.as_deref(), job.as_ref().map(|job| job.state.as_str())) {
        (Some("done"), _) => State::Done,
        (Some("cancelled"), _) | (None, Some("cancelled")) => State::Cancelled,
        (Some("expired"), _) => State::Expired,
        (None, Some("running")) => State::Running,
        (None, Some("waiting" | "later")) => State::Waiting,
        _ => State::Failed,
    };
    let written = found.documents.map(|documents| Progress {
        documents,
        of: documents,
        bytes: found.bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
    });
    let said = job.filter(|_| state.is_open()).and_then(|job| job.progress).and_then(progress);
    let download = match (state, found.expires_at) {
        (State::Done, Some(end)) => {
            let lifetime = LINK.min(end - Utc::now()).to_std().unwrap_or_default();
            Some(tenant.sign_link(&format!("/exports/{}/file", found.id), lifetime)?)
        }
        _ => None,
    };
    Ok(Export {
        id: found.id,
        format: Format::Zip,
        state,
        progress: said.or(written),
        requested_by: found.requested_by,
        created_at: found.created_at,
        ended_at: found.ended_at,
        expires_at: found.expires_at,
        download,
    })
}

fn progress(said: Value) -> Option<Progress> {
    serde_json::from_value(said).ok()
}

/// Ends one that is not over; removes the file of one that is.
///
/// # Errors
/// `NotFound`.
pub async fn remove(tx: &mut TenantTx, id: Uuid) -> Result<()> {
    let sql = "UPDATE exports SET outcome = 'cancelled', ended_at = now() WHERE id = $1 AND outcome IS NULL RETURNING attempt";
    let ended: Option<i32> = sqlx::query_scalar(sql).bind(id).fetch_optional(&mut *tx).await?;
    if let Some(attempt) = ended {
        // Its job finds the row closed, should it be about to begin or to finish.
        jobs::cancel(tx, id).await?;
        if attempt > 0 {
            // What it had begun, once it has surely stopped.
            job::expire(tx, &[id], Duration::from_secs(120)).await?;
        }
        return Ok(());
    }
    let found: Option<String> =
        sqlx::query_scalar("SELECT outcome FROM exports WHERE id = $1").bind(id).fetch_optional(&mut *tx).await?;
    if found.ok_or_else(Error::not_found)? == "done" {
        job::expire(tx, &[id], Duration::ZERO).await?;
    }
    Ok(())
}

/// The name of a finished export's file in the tenant's store, and when it was asked for.
///
/// # Errors
/// `NotFound`; gone (410) when it was there.
pub async fn file(tx: &mut TenantTx, id: Uuid) -> Result<(String, DateTime<Utc>)> {
    let sql = "SELECT object, created_at FROM exports WHERE id = $1 AND outcome IN ('done', 'expired')";
    let found: Option<(Option<String>, DateTime<Utc>)> = sqlx::query_as(sql).bind(id).fetch_optional(tx).await?;
    let (object, at) = found.ok_or_else(Error::not_found)?;
    Ok((object.ok_or_else(gone)?, at))
}

/// The file was there.
pub(crate) fn gone() -> Error {
    let problem = Problem::of_status(axum::http::StatusCode::GONE)
        .detail("This export was kept for a time, and is gone. Ask for a new one.");
    Error::problem(Kind::NotFound, problem)
}
