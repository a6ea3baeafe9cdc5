//! The host side: work that is nobody's, and work for each tenant, once.
//!
//! For: schedules of the host ([`Jobs::host`](crate::Jobs::host)), and sweeps, which give each tenant of all databases one job. Not for: reading
//! or writing tenants' data: that is what their jobs do, in their own context.
//! Always: a sweep is durable where it was begun, and gives each tenant that was there one job, whoever dies; a host firing is at work in one
//! worker at most, and is tried again when that dies.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use insula_catalog::Catalog;
use insula_core::{KeyRing, TenantState};
use insula_data::Data;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::each::TierOrder;
use crate::enqueue::{body, millis, seconds, small};
use crate::error::{Error, JobError};
use crate::given::Given;
use crate::job::Job;
use crate::schedules::{Cron, OffPeak, Zone, minute};
use crate::worker::{DatabaseName, Link, Stop, databases};

/// All databases of the cells that there are keys for, as the workers' login reaches them. Held by whoever may begin work for all tenants.
#[derive(Clone)]
pub struct HostSide {
    pub(crate) catalog: Catalog,
    pub(crate) keys: KeyRing,
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) databases: Option<Vec<DatabaseName>>,
}

impl std::fmt::Debug for HostSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostSide").field("databases", &self.databases).finish_non_exhaustive()
    }
}

impl HostSide {
    /// Of a catalog and keys. `authorities`: certificate authorities of cells' servers, a PEM file. `databases`: these alone.
    #[must_use]
    pub const fn new(
        catalog: Catalog,
        keys: KeyRing,
        authorities: Option<PathBuf>,
        databases: Option<Vec<DatabaseName>>,
    ) -> Self {
        Self { catalog, keys, authorities, databases }
    }

    /// How a sweep stands, over all databases that have it. `None` when none has.
    ///
    /// # Errors
    /// When a database cannot be asked.
    pub async fn sweep(&self, name: &str) -> Result<Option<SweepState>, Error> {
        let mut found: Option<SweepState> = None;
        for database in self.all() {
            let Some(mut link) = self.reach(&database).await? else { continue };
            let state = link.sweep_state(name).await?;
            link.close().await;
            let Some((state, counts)) = state else { continue };
            let sum = found.get_or_insert_with(SweepState::default);
            let [tenants, reached, skipped, queued, dead] = counts.map(|count| u64::try_from(count).unwrap_or_default());
            sum.open |= state == "open";
            sum.stopped |= state == "stopped";
            sum.tenants += tenants;
            sum.reached += reached;
            sum.skipped += skipped;
            sum.queued += queued;
            sum.dead += dead;
        }
        Ok(found)
    }

    /// Stops a sweep: it takes no more tenants. What it enqueued stays. False when it was not going on.
    ///
    /// # Errors
    /// When a database cannot be told.
    pub async fn stop_sweep(&self, name: &str) -> Result<bool, Error> {
        let mut stopped = false;
        for database in self.all() {
            let Some(mut link) = self.reach(&database).await? else { continue };
            stopped |= link.sweep_stop(name).await?;
            link.close().await;
        }
        Ok(stopped)
    }

    fn all(&self) -> BTreeSet<DatabaseName> {
        databases(&self.catalog, &self.keys, self.databases.as_deref()).into_keys().collect()
    }

    /// A connection; `None` when the cell's server has no such database.
    async fn reach(&self, database: &DatabaseName) -> Result<Option<Link>, Error> {
        match Link::reach(&self.catalog, &self.keys, self.authorities.as_deref(), database).await {
            Ok(link) => Ok(Some(link)),
            Err(Error::Sql(sqlx::Error::Database(error))) if error.code().as_deref() == Some("3D000") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How a sweep takes the tenants. The default: the highest tier first, a hundred at a time, as fast as it goes.
#[derive(Clone, Debug)]
pub struct SweepOptions {
    /// Which tier is first, in each database.
    pub order: TierOrder,
    /// Tenants in a second, for each database.
    pub pace: Option<f64>,
    /// Most in one transaction.
    pub batch: u32,
    /// A tenant is taken only in this window of the day, by its own clock.
    pub off_peak: Option<OffPeak>,
    /// Only tenants whose plan has this feature, as a switch that is on or a number that is not 0.
    pub feature: Option<String>,
    /// Of each job, among its tenant's (-1000 to 1000).
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

impl Default for SweepOptions {
    fn default() -> Self {
        Self {
            order: TierOrder::default(),
            pace: None,
            batch: 100,
            off_peak: None,
            feature: None,
            priority: 0,
            deadline: None,
            attempts: None,
            cost: None,
            retention: None,
        }
    }
}

/// How a sweep stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepState {
    /// It goes on in some database: tenants are left, perhaps some that are not active now.
    pub open: bool,
    /// It was stopped.
    pub stopped: bool,
    /// Tenants that were there when it began, and still are.
    pub tenants: u64,
    /// Those that it has been at.
    pub reached: u64,
    /// Those of them that were left out by their plan.
    pub skipped: u64,
    /// Jobs of it that wait or run.
    pub queued: u64,
    /// Jobs of it that are dead letters.
    pub dead: u64,
}

/// Begins a sweep: each tenant that there is now gets this job, once, in its own queue. Workers carry it out; it is durable when this returns.
/// Begun again by the same name, it goes on and begins nothing anew: so a caller that failed in the middle calls again.
///
/// Reaches the cells that `host` has keys for. Where no process has those of all, let code declare it:
/// [`Jobs::sweep`](crate::Jobs::sweep).
///
/// A tenant that is suspended or moving has its job when it is active again; until then the sweep stays open.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Body`], [`Error::Options`] before anything is sent; when a database cannot be reached, after the others were.
pub async fn for_each_tenant<J: Job>(host: &HostSide, name: &str, job: &J, options: &SweepOptions) -> Result<(), Error> {
    let mut row = sweep_row(name, job, options)?;
    // What the catalog knows by the end of this call, so that nobody who was there is left out.
    host.catalog
        .refresh()
        .await
        .map_err(|_| Error::Options("the catalog does not answer: who the tenants are is not known for sure"))?;
    end_at(&mut row, &host.catalog);
    let mut failed = None;
    for database in host.all() {
        let begun = async {
            if let Some(mut link) = host.reach(&database).await? {
                link.sweep_begin(&row).await?;
                link.close().await;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = begun.await {
            tracing::warn!(%error, sweep = name, cell = %database.cell, database = %database.database, "a sweep could not be begun here");
            failed = failed.or(Some(error));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What `insula.sweep_begin()` takes, but for whom it ends at.
pub(crate) fn sweep_row<J: Job>(name: &str, job: &J, options: &SweepOptions) -> Result<Value, Error> {
    if name.is_empty() || name.len() > 100 {
        return Err(Error::Options("a sweep's name has 1 to 100 bytes"));
    }
    if options.pace.is_some_and(|pace| !(0.001..=1_000_000.0).contains(&pace)) || !(1..=10_000).contains(&options.batch) {
        return Err(Error::Options("a sweep's pace is 0.001 to 1000000 tenants in a second, its batch 1 to 10000"));
    }
    let rules = J::rules();
    let body: Value = serde_json::from_str(&body(job)?).map_err(|source| Error::Body { kind: J::KIND, source })?;
    Ok(json!({
        "name": name, "kind": J::KIND, "lane": rules.lane(J::KIND), "rank": -i32::from(options.priority),
        "attempts": small(options.attempts.unwrap_or(rules.attempts)), "cost": small(options.cost.unwrap_or(rules.cost)),
        "keep": seconds(options.retention.unwrap_or(rules.retention)), "deadline_ms": options.deadline.map(millis), "pace": options.pace,
        "batch": options.batch, "lowest_first": options.order == TierOrder::LowestFirst,
        "off_peak_from": options.off_peak.map(|window| minute(window.from())),
        "off_peak_to": options.off_peak.map(|window| minute(window.to())), "feature": options.feature, "body": body,
    }))
}

/// Tenants with greater numbers than there are now come later.
pub(crate) fn end_at(row: &mut Value, catalog: &Catalog) {
    let last = catalog.look(|view| view.routes().map(|route| route.no.get()).max());
    if let Some(row) = row.as_object_mut() {
        row.insert("last_no".to_owned(), last.unwrap_or(0).into());
    }
}

/// What a schedule of the host is given when it comes.
#[derive(Clone)]
pub struct HostContext {
    pub(crate) name: Arc<str>,
    pub(crate) firing: DateTime<Utc>,
    pub(crate) attempt: i32,
    pub(crate) host: HostSide,
    pub(crate) data: Data,
    pub(crate) given: Given,
    pub(crate) stop: watch::Receiver<Option<Stop>>,
}

impl std::fmt::Debug for HostContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostContext").field("name", &self.name).field("firing", &self.firing).finish_non_exhaustive()
    }
}

impl HostContext {
    /// The schedule's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it was to come: the same in each attempt, so what makes effects idempotent.
    #[must_use]
    pub const fn firing(&self) -> DateTime<Utc> {
        self.firing
    }

    /// Counts from 1 for each firing.
    #[must_use]
    pub const fn attempt(&self) -> i32 {
        self.attempt
    }

    /// What the process knows of tenants, plans and cells.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.host.catalog
    }

    /// The number of active tenants that the process knows.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.host.catalog.look(|view| view.routes().filter(|route| route.state() == TenantState::Active).count())
    }

    /// The host side, for sweeps.
    #[must_use]
    pub const fn host_side(&self) -> &HostSide {
        &self.host
    }

    /// Access to tenants' data, one tenant at a time: a transaction needs a tenant's context.
    #[must_use]
    pub const fn data(&self) -> &Data {
        &self.data
    }

    /// What the process gave its jobs of this type ([`Jobs::giving`](crate::Jobs::giving)).
    #[must_use]
    pub fn given<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.given.get()
    }

    /// Gives each tenant this job, once for this firing, however often it is tried: see [`for_each_tenant`].
    ///
    /// # Errors
    /// As [`for_each_tenant`].
    pub async fn for_each_tenant<J: Job>(&self, job: &J, options: &SweepOptions) -> Result<(), Error> {
        let name = format!("{}:{}", self.name, self.firing.format("%Y-%m-%dT%H:%M:%SZ"));
        for_each_tenant(&self.host, &name, job, options).await
    }

    /// Whether its worker stops or has lost its lease. Work that never waits looks here now and then; work that waits is stopped at its `.await`.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }
}

type Handler = Arc<dyn Fn(HostContext) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

/// A schedule of the host, as code declares it.
#[derive(Clone)]
pub(crate) struct HostSchedule {
    pub(crate) name: Arc<str>,
    pub(crate) cron: Cron,
    pub(crate) zone: Zone,
    pub(crate) run: Handler,
}
