//! Jobs of tenants and their schedules, in the queues of their cells.
//!
//! Always: a change is in the audit log before it holds in the cell. So the log may tell of one that was not to be (the cell went away in
//! between), and never keeps one back. What jobs say of themselves (errors, progress, keys, who asked) is the tenant's own as well: who reads it
//! is in the log, too, at most once an hour for each key and tenant, so that looking on does not fill the log; a body, each time.

use std::time::Instant;

use chrono::{DateTime, Utc};
use insula_api::job::{Job, JobBody, JobQuery, JobState};
use insula_api::schedule::Schedule;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Control;
use crate::doors::Errand;
use crate::error::Error;
use crate::model::{Page, PageRequest, Tenant};
use crate::queue::Queue;
use crate::{check, store};

impl Control {
    /// The queue that a tenant's jobs are in.
    pub(crate) async fn queue_of(&self, tenant: &str, errand: Errand) -> Result<(Tenant, Queue), Error> {
        let mut conn = self.catalog_pool().acquire().await?;
        let tenant = store::tenants::find(&mut conn, tenant).await?;
        let Some(place) = &tenant.placement else {
            return Err(Error::Conflict(format!("tenant {} has no place yet, and so no jobs", tenant.slug)));
        };
        let cell = store::cells::get(&mut conn, &place.cell).await?.ok_or_else(|| Error::not_found("cell", &place.cell))?;
        drop(conn);
        let queue = Queue::open(self.cells(), &cell, &place.database, errand).await?;
        Ok((tenant, queue))
    }

    /// Writes the audit line, then makes the change good.
    pub(crate) async fn settle_queue(
        &self,
        (actor, action): (&str, &str),
        tenant: &Tenant,
        queue: Queue,
        target: &str,
        detail: Value,
    ) -> Result<(), Error> {
        let mut tx = self.catalog_pool().begin().await?;
        store::audit::append(&mut tx, actor, action, Some(tenant.id.uuid()), target, &detail).await?;
        tx.commit().await?;
        queue.commit().await
    }

    /// Says in the audit log who looks at a tenant's jobs, unless it has said so lately.
    async fn seen_by(&self, actor: &str, tenant: &Tenant) -> Result<(), Error> {
        let now = Instant::now();
        if !self.onlookers().is_new(actor, tenant.id, now) {
            return Ok(());
        }
        let mut tx = self.catalog_pool().begin().await?;
        store::audit::append(&mut tx, actor, "job.read", Some(tenant.id.uuid()), tenant.slug.as_str(), &json!({})).await?;
        tx.commit().await?;
        self.onlookers().told(actor, tenant.id, now);
        Ok(())
    }

    /// Jobs of a tenant, newest first. The audit log says who looked.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`]; [`Error::Away`] when its cell does not answer, or too many ask it at once.
    pub async fn jobs(&self, actor: &str, tenant: &str, query: &JobQuery, page: &PageRequest) -> Result<Page<Job>, Error> {
        if let Some(kind) = &query.kind {
            check::text("kind", kind, 1, 100)?;
        }
        let before = page.id_key()?;
        let (tenant, mut queue) = self.queue_of(tenant, Errand::Read).await?;
        let found = queue.jobs(tenant.no, query.state, query.kind.as_deref(), before, page.rows()).await?;
        queue.commit().await?;
        self.seen_by(actor, &tenant).await?;
        Ok(page.page(found, |job| job.id.simple().to_string()))
    }

    /// One job. The audit log says who looked.
    ///
    /// # Errors
    /// As [`Control::jobs`].
    pub async fn job(&self, actor: &str, tenant: &str, id: Uuid) -> Result<Job, Error> {
        let (tenant, mut queue) = self.queue_of(tenant, Errand::Read).await?;
        let found = queue.job(tenant.no, id).await?;
        queue.commit().await?;
        let found = found.ok_or_else(|| Error::not_found("job", id))?;
        self.seen_by(actor, &tenant).await?;
        Ok(found)
    }

    /// What a job was asked and what it answered. It is the tenant's own data: the audit log says who looked.
    ///
    /// # Errors
    /// As [`Control::jobs`].
    pub async fn job_body(&self, actor: &str, tenant: &str, id: Uuid) -> Result<JobBody, Error> {
        let (tenant, mut queue) = self.queue_of(tenant, Errand::Read).await?;
        let found = queue.body(tenant.no, id).await?.ok_or_else(|| Error::not_found("job", id))?;
        self.settle_queue((actor, "job.body"), &tenant, queue, &id.to_string(), json!({})).await?;
        Ok(found)
    }

    /// Cancels a job: one that waits is over at once, one that runs is told, and is over when it stops.
    ///
    /// # Errors
    /// As [`Control::jobs`]; [`Error::Conflict`] when it has ended.
    pub async fn cancel_job(&self, actor: &str, tenant: &str, id: Uuid) -> Result<Job, Error> {
        let (tenant, mut queue) = self.queue_of(tenant, Errand::Change).await?;
        let was = queue.cancel(tenant.no, id).await?.ok_or_else(|| Error::not_found("job", id))?;
        if JobState::from_name(&was).is_none_or(|state| matches!(state, JobState::Done | JobState::Dead | JobState::Cancelled)) {
            return Err(Error::Conflict(format!("job {id} is {was}: there is nothing to cancel")));
        }
        let now = queue.job(tenant.no, id).await?.ok_or_else(|| Error::not_found("job", id))?;
        let detail = json!({"kind": now.kind, "was": was});
        self.settle_queue((actor, "job.cancel"), &tenant, queue, &id.to_string(), detail).await?;
        Ok(now)
    }

    /// Has a job tried now: a dead letter waits again, one that waits for its time goes at once.
    ///
    /// # Errors
    /// As [`Control::jobs`]; [`Error::Conflict`] when it is neither.
    pub async fn retry_job(&self, actor: &str, tenant: &str, id: Uuid) -> Result<Job, Error> {
        let (tenant, mut queue) = self.queue_of(tenant, Errand::Change).await?;
        let was = queue.retry(tenant.no, id).await?.ok_or_else(|| Error::not_found("job", id))?;
        match was.as_str() {
            "dead" | "later" => {}
            "key" => return Err(Error::Conflict(format!("another job of its kind with the key of job {id} waits or runs"))),
            _ => return Err(Error::Conflict(format!("job {id} is {was}: only one that is dead, or later, can be tried again"))),
        }
        let now = queue.job(tenant.no, id).await?.ok_or_else(|| Error::not_found("job", id))?;
        let detail = json!({"kind": now.kind, "was": was});
        self.settle_queue((actor, "job.retry"), &tenant, queue, &id.to_string(), detail).await?;
        Ok(now)
    }

    /// Lets all dead letters of a tenant wait again, but those whose keys living jobs have; how many.
    ///
    /// # Errors
    /// As [`Control::jobs`].
    pub async fn replay_dead(&self, actor: &str, tenant: &str) -> Result<i64, Error> {
        let (tenant, mut queue) = self.queue_of(tenant, Errand::Change).await?;
        let jobs = queue.replay_dead(tenant.no).await?;
        self.settle_queue((actor, "dead.replay"), &tenant, queue, tenant.slug.as_str(), json!({"jobs": jobs})).await?;
        Ok(jobs)
    }

    /// Forgets dead letters of a tenant that ended before a moment; how many.
    ///
    /// # Errors
    /// As [`Control::jobs`].
    pub async fn purge_dead(&self, actor: &str, tenant: &str, before: Option<DateTime<Utc>>) -> Result<i64, Error> {
        let (tenant, mut queue) = self.queue_of(tenant, Errand::Change).await?;
        let before = before.unwrap_or_else(Utc::now);
        let jobs = queue.purge_dead(tenant.no, before).await?;
        let detail = json!({"jobs": jobs, "before": before});
        self.settle_queue((actor, "dead.purge"), &tenant, queue, tenant.slug.as_str(), detail).await?;
        Ok(jobs)
    }

    /// Schedules of a tenant, by name.
    ///
    /// # Errors
    /// As [`Control::jobs`].
    pub async fn schedules(&self, tenant: &str, page: &PageRequest) -> Result<Page<Schedule>, Error> {
        let after = page.name_key()?;
        let (tenant, mut queue) = self.queue_of(tenant, Errand::Read).await?;
        let found = queue.schedules(tenant.no).await?;
        queue.commit().await?;
        Ok(page.page(found.into_iter().filter(|s| s.name > after).collect(), |schedule| schedule.name.clone()))
    }

    /// Pauses a schedule, or lets it go on from now: what would have come between is not made up for.
    ///
    /// # Errors
    /// As [`Control::jobs`].
    pub async fn pause_schedule(&self, actor: &str, tenant: &str, name: &str, paused: bool) -> Result<Schedule, Error> {
        let missing = || Error::not_found("schedule", name.chars().take(100).collect::<String>());
        if name.contains('\0') {
            return Err(missing());
        }
        let (tenant, mut queue) = self.queue_of(tenant, Errand::Change).await?;
        if !queue.pause(tenant.no, name, paused).await? {
            return Err(missing());
        }
        let now = queue.schedules(tenant.no).await?.into_iter().find(|schedule| schedule.name == name).ok_or_else(missing)?;
        let action = if paused { "schedule.pause" } else { "schedule.resume" };
        self.settle_queue((actor, action), &tenant, queue, name, json!({"kind": now.kind})).await?;
        Ok(now)
    }
}
