//! The calls about jobs, their schedules, and those who run them.

use reqwest::Method;
use uuid::Uuid;

use super::{Call, Client};
use crate::error::Error;
use crate::job::{Job, JobBody, JobCount, JobQuery, PurgeDead, ReplayDead};
use crate::page::{Page, PageQuery};
use crate::schedule::{HostSchedule, Schedule};
use crate::worker::{WorkerQuery, Workers};

const NOTHING: [(); 0] = [];

#[allow(clippy::missing_errors_doc)]
/// Jobs. `tenant` is an id or a slug.
impl Client {
    /// A page of a tenant's jobs, the newest first.
    pub async fn jobs(&self, tenant: &str, query: &JobQuery) -> Result<Page<Job>, Error> {
        self.get(&["v1", "tenants", tenant, "jobs"], query).await
    }

    /// One job.
    pub async fn job(&self, tenant: &str, id: Uuid) -> Result<Job, Error> {
        self.get(&["v1", "tenants", tenant, "jobs", &id.to_string()], &NOTHING).await
    }

    /// What a job was asked and what it answered; the audit log has a line of it.
    pub async fn job_body(&self, tenant: &str, id: Uuid) -> Result<JobBody, Error> {
        self.get(&["v1", "tenants", tenant, "jobs", &id.to_string(), "body"], &NOTHING).await
    }

    /// Cancels a job.
    pub async fn cancel_job(&self, tenant: &str, id: Uuid) -> Result<Job, Error> {
        self.post(&["v1", "tenants", tenant, "jobs", &id.to_string(), "cancel"], &NOTHING, &serde_json::json!({})).await
    }

    /// Has a job that was given up, or that waits for its time, tried now.
    pub async fn retry_job(&self, tenant: &str, id: Uuid) -> Result<Job, Error> {
        self.post(&["v1", "tenants", tenant, "jobs", &id.to_string(), "retry"], &NOTHING, &serde_json::json!({})).await
    }

    /// Lets all dead letters of a tenant wait again.
    pub async fn replay_dead(&self, tenant: &str) -> Result<JobCount, Error> {
        self.post(&["v1", "tenants", tenant, "dead-jobs", "replay"], &NOTHING, &ReplayDead {}).await
    }

    /// Forgets dead letters of a tenant.
    pub async fn purge_dead(&self, tenant: &str, which: &PurgeDead) -> Result<JobCount, Error> {
        let path = ["v1", "tenants", tenant, "dead-jobs"];
        self.send(Call::new(Method::DELETE, &path).query(which)?).await?.json_of(self.url()).await
    }

    /// A page of a tenant's schedules, by name.
    pub async fn schedules(&self, tenant: &str, page: &PageQuery) -> Result<Page<Schedule>, Error> {
        self.get(&["v1", "tenants", tenant, "schedules"], page).await
    }

    /// Stops a schedule until it is resumed.
    pub async fn pause_schedule(&self, tenant: &str, name: &str) -> Result<Schedule, Error> {
        self.post(&["v1", "tenants", tenant, "schedules", name, "pause"], &NOTHING, &serde_json::json!({})).await
    }

    /// Lets a schedule come again, from now on.
    pub async fn resume_schedule(&self, tenant: &str, name: &str) -> Result<Schedule, Error> {
        self.post(&["v1", "tenants", tenant, "schedules", name, "resume"], &NOTHING, &serde_json::json!({})).await
    }

    /// A page of the host's schedules, by name.
    pub async fn host_schedules(&self, page: &PageQuery) -> Result<Page<HostSchedule>, Error> {
        self.get(&["v1", "host-schedules"], page).await
    }

    /// Stops a schedule of the host until it is resumed.
    pub async fn pause_host_schedule(&self, name: &str) -> Result<HostSchedule, Error> {
        self.post(&["v1", "host-schedules", name, "pause"], &NOTHING, &serde_json::json!({})).await
    }

    /// Lets a schedule of the host come again, from now on.
    pub async fn resume_host_schedule(&self, name: &str) -> Result<HostSchedule, Error> {
        self.post(&["v1", "host-schedules", name, "resume"], &NOTHING, &serde_json::json!({})).await
    }

    /// Those who run jobs.
    pub async fn workers(&self, query: &WorkerQuery) -> Result<Workers, Error> {
        self.get(&["v1", "workers"], query).await
    }
}
