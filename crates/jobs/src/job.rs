//! What a kind of job is.

use std::time::Duration;

use insula_planner::again::Backoff;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::JobContext;
use crate::error::JobError;

/// One kind of job. The value is the body: what [`enqueue`](crate::enqueue()) writes and a worker reads.
///
/// A body that no longer decodes is a dead letter, so fields are added with `#[serde(default)]`.
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// Its name in the queue: 1 to 100 bytes, never reused for something else.
    const KIND: &'static str;

    /// What is kept of a job that went well, when it asks for retention; `()` when nothing. With more than [`OUTPUT_BYTES`](crate::OUTPUT_BYTES) of JSON
    /// the job is a dead letter; a NUL in it is kept as U+FFFD.
    type Output: Serialize + Send;

    /// How jobs of this kind run.
    #[must_use]
    fn rules() -> KindRules {
        KindRules::default()
    }

    /// Does the work, inside the tenant's scope. May run more than once: see the crate's documentation.
    fn run(self, context: JobContext) -> impl Future<Output = Result<Self::Output, JobError>> + Send;
}

/// How jobs of one kind run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KindRules {
    /// Attempts before it is a dead letter (1 to 100).
    pub attempts: u32,
    /// Longest run; then it is stopped, and the attempt has failed.
    pub timeout: Duration,
    /// Between attempts.
    pub backoff: Backoff,
    /// Most jobs of this kind that one tenant may have running. A kind with a cap or a rate has a line of its own in each tenant.
    pub cap: Option<u32>,
    /// A feature of the plan that says the cap instead, where the plan has it (`max_concurrent_exports`).
    pub cap_feature: Option<&'static str>,
    /// Most starts of this kind in a second, for each tenant.
    pub rate: Option<f64>,
    /// What one costs, in units of 10 ms of work: what a lane is charged until the time is measured.
    pub cost: u32,
    /// How long the end of one that went well, with its output, can be asked for.
    pub retention: Duration,
}

impl Default for KindRules {
    fn default() -> Self {
        Self {
            attempts: 10,
            timeout: Duration::from_secs(300),
            backoff: Backoff::default(),
            cap: None,
            cap_feature: None,
            rate: None,
            cost: 1,
            retention: Duration::ZERO,
        }
    }
}

impl KindRules {
    /// The name of its line in each tenant: its own, or the common one.
    pub(crate) fn lane(&self, kind: &'static str) -> &'static str {
        if self.cap.is_some() || self.cap_feature.is_some() || self.rate.is_some() { kind } else { "" }
    }
}
