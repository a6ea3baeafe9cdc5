//! Enqueueing: in the tenant's own transaction, so that a job exists exactly when what it belongs to does.

use std::time::Duration;

use insula_core::{TenantContext, scope};
use insula_data::{Data, TenantTx};
use sqlx::Row;
use uuid::Uuid;

use crate::error::Error;
use crate::job::Job;

/// The largest body, bytes of JSON.
pub const BODY_BYTES: usize = 262_144;
/// Jobs in one statement.
const BATCH: usize = 1_000;

/// What keys of schedules' and sweeps' jobs begin with. `insula.enqueue()` refuses them too.
const OWN_KEYS: [&str; 2] = ["schedule:", "sweep:"];

const ENQUEUE: &str = "SELECT false, insula.enqueue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
/// In a database of one tenant: whether workers are to be told, asked first.
const ASK_AND_ENQUEUE: &str = "SELECT insula.must_ring(), insula.enqueue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// A job's identity: the same in each attempt.
pub type JobId = Uuid;

/// How a job is enqueued. The default: now, at priority 0, without a key.
#[derive(Clone, Debug, Default)]
pub struct Enqueue {
    /// Among this tenant's jobs the higher is sooner (-1000 to 1000).
    pub priority: i16,
    /// Not before this has passed.
    pub delay: Duration,
    /// Not started after this has passed: then it is a dead letter.
    pub deadline: Option<Duration>,
    /// While a job of the kind with this key waits or runs, another is not enqueued. Does not begin with `schedule:` or `sweep:`, which are the
    /// queue's own.
    pub key: Option<String>,
    /// Other than the kind's.
    pub attempts: Option<u32>,
    /// Other than the kind's.
    pub cost: Option<u32>,
    /// Other than the kind's.
    pub retention: Option<Duration>,
}

/// Enqueues a job in the tenant's transaction. `None` when its key is taken.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Body`], [`Error::Options`] for a key that is the queue's own, before anything is sent; else as the transaction.
pub async fn enqueue<J: Job>(tx: &mut TenantTx, job: &J, options: &Enqueue) -> Result<Option<JobId>, Error> {
    let batch = Batch::of(std::slice::from_ref(job), options, tx.context())?;
    let given = batch.insert(tx).await?;
    Ok(batch.ids.first().copied().filter(|_| given > 0))
}

/// Enqueues many jobs of one kind in the tenant's transaction, a thousand in a statement.
///
/// # Errors
/// As [`enqueue`]; [`Error::Options`] when a key is given, which all would share.
pub async fn enqueue_all<J: Job>(tx: &mut TenantTx, jobs: &[J], options: &Enqueue) -> Result<Vec<JobId>, Error> {
    if options.key.is_some() && jobs.len() > 1 {
        return Err(Error::Options("jobs of one batch cannot share a key"));
    }
    let mut ids = Vec::with_capacity(jobs.len());
    for jobs in jobs.chunks(BATCH) {
        let batch = Batch::of(jobs, options, tx.context())?;
        batch.insert(tx).await?;
        ids.extend(batch.ids);
    }
    Ok(ids)
}

/// Enqueues a job in a transaction of its own: for what belongs to nothing that is written.
///
/// # Errors
/// As [`enqueue`].
pub async fn send<J: Job>(data: &Data, context: &TenantContext, job: &J, options: &Enqueue) -> Result<Option<JobId>, Error> {
    let mut tx = data.begin(context).await?;
    let id = enqueue(&mut tx, job, options).await?;
    tx.commit().await?;
    Ok(id)
}

/// Enqueues many jobs in a transaction of their own.
///
/// # Errors
/// As [`enqueue_all`].
pub async fn send_all<J: Job>(data: &Data, context: &TenantContext, jobs: &[J], options: &Enqueue) -> Result<Vec<JobId>, Error> {
    let mut tx = data.begin(context).await?;
    let ids = enqueue_all(&mut tx, jobs, options).await?;
    tx.commit().await?;
    Ok(ids)
}

/// Cancels a job of this tenant: one that waits never runs, one that runs is stopped within a beat of its worker. False when there is none.
///
/// # Errors
/// As the transaction.
pub async fn cancel(tx: &mut TenantTx, id: JobId) -> Result<bool, Error> {
    let row = sqlx::query("SELECT insula.cancel_job($1)").bind(id).fetch_one(tx).await?;
    Ok(row.try_get(0)?)
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq)]
pub struct JobState {
    /// `waiting`, `later`, `running`, `done`, `dead` or `cancelled`.
    pub state: String,
    /// Its kind.
    pub kind: String,
    /// Attempts begun.
    pub attempt: i32,
    /// What it last said of its progress.
    pub progress: Option<serde_json::Value>,
    /// What it answered.
    pub result: Option<serde_json::Value>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// A job of this tenant; `None` when there is none, or its end is not kept.
///
/// # Errors
/// As the transaction.
pub async fn state(tx: &mut TenantTx, id: JobId) -> Result<Option<JobState>, Error> {
    let sql = "SELECT state, kind, attempt, progress, result, error FROM insula.job_state($1)";
    let row = sqlx::query(sql).bind(id).fetch_optional(tx).await?;
    row.map(|row| {
        Ok(JobState {
            state: row.try_get(0)?,
            kind: row.try_get(1)?,
            attempt: row.try_get(2)?,
            progress: row.try_get(3)?,
            result: row.try_get(4)?,
            error: row.try_get(5)?,
        })
    })
    .transpose()
}

/// Jobs of one kind, as one statement takes them.
struct Batch<'a> {
    kind: &'static str,
    lane: &'static str,
    ids: Vec<Uuid>,
    bodies: Vec<String>,
    keys: Option<Vec<&'a str>>,
    priority: i16,
    delay_ms: i64,
    deadline_ms: Option<i64>,
    attempts: i32,
    cost: i32,
    retention_s: i32,
    principal: Option<String>,
    trace: Option<String>,
}

impl<'a> Batch<'a> {
    fn of<J: Job>(jobs: &[J], options: &'a Enqueue, context: &TenantContext) -> Result<Self, Error> {
        if options.key.as_deref().is_some_and(|key| OWN_KEYS.iter().any(|own| key.starts_with(own))) {
            return Err(Error::Options(
                "keys that begin with \"schedule:\" or \"sweep:\" are the queue's own: begin this one with another word",
            ));
        }
        let rules = J::rules();
        let bodies = jobs.iter().map(body).collect::<Result<_, _>>()?;
        Ok(Self {
            kind: J::KIND,
            lane: rules.lane(J::KIND),
            ids: jobs.iter().map(|_| Uuid::now_v7()).collect(),
            bodies,
            keys: options.key.as_deref().map(|key| vec![key]),
            priority: options.priority,
            delay_ms: millis(options.delay),
            deadline_ms: options.deadline.map(millis),
            attempts: small(options.attempts.unwrap_or(rules.attempts)),
            cost: small(options.cost.unwrap_or(rules.cost)),
            retention_s: seconds(options.retention.unwrap_or(rules.retention)),
            principal: principal(context),
            trace: context.trace.as_ref().map(|trace| trace.parent.to_string()),
        })
    }

    async fn insert(&self, tx: &mut TenantTx) -> Result<i64, Error> {
        let sql = if tx.is_alone() { ASK_AND_ENQUEUE } else { ENQUEUE };
        let row = sqlx::query(sql)
            .bind(self.kind)
            .bind(&self.ids)
            .bind(&self.bodies)
            .bind(&self.keys)
            .bind(self.lane)
            .bind(self.priority)
            .bind(self.delay_ms)
            .bind(self.deadline_ms)
            .bind(self.attempts)
            .bind(self.cost)
            .bind(self.retention_s)
            .bind(&self.principal)
            .bind(&self.trace)
            .fetch_one(&mut *tx)
            .await?;
        let given = row.try_get(1)?;
        if given > 0 && row.try_get(0)? {
            tx.ring_when_committed();
        }
        Ok(given)
    }
}

/// A job's body, of a size that is allowed.
pub(crate) fn body<J: Job>(job: &J) -> Result<String, Error> {
    let body = serde_json::to_string(job).map_err(|source| Error::Body { kind: J::KIND, source })?;
    if body.len() > BODY_BYTES {
        return Err(Error::TooLarge { kind: J::KIND, bytes: body.len(), most: BODY_BYTES });
    }
    Ok(body)
}

/// On whose behalf: what runs now may know more than the transaction's context.
pub(crate) fn principal(context: &TenantContext) -> Option<String> {
    let principal = context.principal.as_deref().map(str::to_owned);
    principal.or_else(|| scope::current().ok().and_then(|now| now.principal.as_deref().map(str::to_owned)))
}

pub(crate) fn seconds(span: Duration) -> i32 {
    small(u32::try_from(span.as_secs()).unwrap_or(u32::MAX))
}

pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn small(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
