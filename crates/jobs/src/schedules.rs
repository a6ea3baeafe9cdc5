//! Schedules of a tenant: jobs that come again, by a cron pattern.
//!
//! For: putting them in a transaction of the tenant, listing, pausing, taking away. What every tenant has is declared in code instead:
//! [`Jobs::each_tenant`](crate::Jobs::each_tenant). Not for: when it is (`insula-planner`), or firing (workers do).
//! Always: a firing is one job, however many workers there are. Firings that were missed, while no worker ran or the tenant was not active, come as
//! one, late. Nothing is made up for that came while a schedule was paused.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use insula_data::TenantTx;
use insula_planner::cron;
pub use insula_planner::cron::{Cron, CronError, Window as OffPeak};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::enqueue::{body, millis, principal, seconds, small};
use crate::error::Error;
use crate::job::Job;

const PUT: &str = "SELECT insula.schedule_put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// By whose clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The tenant's, as its settings say; when they change, so does the schedule. UTC where they name a zone that there is not.
    Tenant,
    /// UTC.
    Utc,
    /// A zone that IANA names, like `Europe/Vienna`.
    Named(Arc<str>),
}

impl Zone {
    /// A zone of that name.
    ///
    /// # Errors
    /// [`CronError::Zone`] when there is none.
    pub fn named(name: &str) -> Result<Self, CronError> {
        cron::Zone::find(name)?;
        Ok(Self::Named(name.into()))
    }

    /// As the column has it.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Tenant => None,
            Self::Utc => Some("UTC"),
            Self::Named(name) => Some(name),
        }
    }
}

/// How the jobs of a schedule are. The default: as the kind says.
#[derive(Clone, Debug, Default)]
pub struct ScheduleOptions {
    /// Comes only in this window of the day, by the tenant's clock: a firing outside is put off until it begins, several as one.
    pub off_peak: Option<OffPeak>,
    /// Of each job, among this tenant's (-1000 to 1000).
    pub priority: i16,
    /// A job that has not started when this has passed is a dead letter.
    pub deadline: Option<Duration>,
    /// Other than the kind's.
    pub attempts: Option<u32>,
    /// Other than the kind's.
    pub cost: Option<u32>,
    /// Other than the kind's.
    pub retention: Option<Duration>,
}

/// A schedule as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Its name, the tenant's own.
    pub name: String,
    /// Whether the application's code declares it for every tenant. Such a one can be paused, and not taken away.
    pub of_code: bool,
    /// The kind of its jobs.
    pub kind: String,
    /// The pattern.
    pub cron: String,
    /// The zone; `None` while no worker has looked at one that follows the tenant's.
    pub zone: Option<String>,
    /// When it may come.
    pub off_peak: Option<OffPeak>,
    /// Whether it does not come at all.
    pub paused: bool,
    /// When it comes next; `None` while it is paused, and until a worker has looked at it.
    pub next_at: Option<DateTime<Utc>>,
    /// When it last came.
    pub last_at: Option<DateTime<Utc>>,
    /// Why it never comes.
    pub error: Option<String>,
    /// The job.
    pub body: serde_json::Value,
}

/// Puts a schedule, or changes the one of that name. Put again as it was, it comes when it would have come; a pause stays.
///
/// # Errors
/// [`Error::Cron`] for a zone that there is not, [`Error::TooLarge`], [`Error::Body`] before anything is sent; a conflict when the name is the
/// application's own; else as the transaction.
pub async fn put<J: Job>(
    tx: &mut TenantTx,
    name: &str,
    cron: &Cron,
    zone: &Zone,
    job: &J,
    options: &ScheduleOptions,
) -> Result<(), Error> {
    if let Zone::Named(name) = zone {
        cron::Zone::find(name)?;
    }
    let body = body(job)?;
    sqlx::query(PUT)
        .bind(name)
        .bind(J::KIND)
        .bind(body)
        .bind(cron.as_str())
        .bind(zone.text())
        .bind(options.off_peak.map(|window| minute(window.from())))
        .bind(options.off_peak.map(|window| minute(window.to())))
        .bind(options.priority)
        .bind(options.attempts.map(small))
        .bind(options.cost.map(small))
        .bind(options.retention.map(seconds))
        .bind(options.deadline.map(millis))
        .bind(principal(tx.context()))
        .execute(&mut *tx)
        .await?;
    tx.ring_when_committed();
    Ok(())
}

/// The tenant's schedules by name, its own and those that code declares.
///
/// # Errors
/// As the transaction.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Schedule>, Error> {
    let sql = "SELECT name, origin = 'code', kind, cron, zone, off_peak_from, off_peak_to, paused, next_at, last_at, error, body
                 FROM insula.schedule_list()";
    let rows = sqlx::query(sql).fetch_all(tx).await?;
    rows.iter().map(|row| read(row).map_err(Error::from)).collect()
}

fn read(row: &PgRow) -> Result<Schedule, sqlx::Error> {
    let (from, to): (Option<i16>, Option<i16>) = (row.try_get(5)?, row.try_get(6)?);
    Ok(Schedule {
        name: row.try_get(0)?,
        of_code: row.try_get(1)?,
        kind: row.try_get(2)?,
        cron: row.try_get(3)?,
        zone: row.try_get(4)?,
        off_peak: window(from, to),
        paused: row.try_get(7)?,
        next_at: row.try_get(8)?,
        last_at: row.try_get(9)?,
        error: row.try_get(10)?,
        body: row.try_get(11)?,
    })
}

/// Lets a schedule not come until it is resumed; also one that code declares. False when there is none.
///
/// # Errors
/// As the transaction.
pub async fn pause(tx: &mut TenantTx, name: &str) -> Result<bool, Error> {
    switch(tx, name, true).await
}

/// Lets a schedule come again, from now on. False when there is none.
///
/// # Errors
/// As the transaction.
pub async fn resume(tx: &mut TenantTx, name: &str) -> Result<bool, Error> {
    switch(tx, name, false).await
}

async fn switch(tx: &mut TenantTx, name: &str, paused: bool) -> Result<bool, Error> {
    let row = sqlx::query("SELECT insula.schedule_switch($1, $2)").bind(name).bind(paused).fetch_one(&mut *tx).await?;
    // Whoever looks after a tenant's own database is to know when it comes.
    tx.ring_when_committed();
    Ok(row.try_get(0)?)
}

/// Takes a schedule of the tenant's own away. False when there is none.
///
/// # Errors
/// A conflict when code declares it; else as the transaction.
pub async fn remove(tx: &mut TenantTx, name: &str) -> Result<bool, Error> {
    let row = sqlx::query("SELECT insula.schedule_remove($1)").bind(name).fetch_one(tx).await?;
    Ok(row.try_get(0)?)
}

/// A window from its columns.
pub(crate) fn window(from: Option<i16>, to: Option<i16>) -> Option<OffPeak> {
    let (from, to) = from.zip(to)?;
    OffPeak::new(u16::try_from(from).ok()?, u16::try_from(to).ok()?).ok()
}

pub(crate) fn minute(minute: u16) -> i16 {
    i16::try_from(minute).unwrap_or_default()
}
