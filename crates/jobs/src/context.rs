//! What a job is given while it runs.

use std::sync::Arc;

use insula_core::TenantContext;
use insula_data::{Data, Error as DataError, TenantTx};
use tokio::sync::watch;
use uuid::Uuid;

use crate::given::Given;
use crate::said;
use crate::worker::{Reports, Stop};

/// A job's surroundings: whose it is, its identity and attempt, its tenant's transactions, progress, cancellation.
#[derive(Clone)]
pub struct JobContext {
    pub(crate) tenant: TenantContext,
    pub(crate) id: Uuid,
    pub(crate) attempt: i32,
    pub(crate) data: Data,
    pub(crate) given: Given,
    pub(crate) reports: Arc<dyn Reports>,
    pub(crate) stop: watch::Receiver<Option<Stop>>,
}

impl std::fmt::Debug for JobContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobContext").field("id", &self.id).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

impl JobContext {
    /// Whose job it is, and on whose behalf.
    #[must_use]
    pub const fn tenant(&self) -> &TenantContext {
        &self.tenant
    }

    /// The same in each attempt: what makes effects idempotent.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Counts from 1 and only grows: the fencing number for stores that take one.
    #[must_use]
    pub const fn attempt(&self) -> i32 {
        self.attempt
    }

    /// Opens a transaction of the tenant.
    ///
    /// # Errors
    /// As [`Data::begin`].
    pub async fn begin(&self) -> Result<TenantTx, DataError> {
        self.data.begin(&self.tenant).await
    }

    /// The tenant's data access.
    #[must_use]
    pub const fn data(&self) -> &Data {
        &self.data
    }

    /// What the process gave its jobs of this type ([`Jobs::giving`](crate::Jobs::giving)).
    #[must_use]
    pub fn given<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.given.get()
    }

    /// Says how far it is: shown within a beat, the last word alone. One of more than [`PROGRESS_BYTES`](crate::PROGRESS_BYTES) is not shown, and what
    /// was said before stays; a NUL in it is shown as U+FFFD.
    pub fn progress(&self, progress: impl Into<serde_json::Value>) {
        let Some(progress) = said::progress(progress.into()) else {
            tracing::debug!(job = %self.id, "a job's progress is too large to be shown");
            return;
        };
        self.reports.progress(self.tenant.no, self.id, self.attempt, progress);
    }

    /// Whether it was cancelled, or its worker stops or has lost its lease. Work that never waits looks here now and then; work that waits is
    /// stopped at its `.await`.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }
}
