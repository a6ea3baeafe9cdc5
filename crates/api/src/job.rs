//! Jobs of a tenant: what is to be done later, what runs, how it ended.
//!
//! Bodies and results are the tenant's own data: they are in [`JobBody`] alone.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// May run, and waits for its turn.
    Waiting,
    /// Waits for its time: delayed, or to be tried again.
    Later,
    /// A worker is at it.
    Running,
    /// Ended well.
    Done,
    /// Given up.
    Dead,
    /// Somebody cancelled it.
    Cancelled,
}

impl JobState {
    /// All, in the order of a job's life.
    pub const ALL: [Self; 6] = [Self::Waiting, Self::Later, Self::Running, Self::Done, Self::Dead, Self::Cancelled];

    /// As the queue writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Later => "later",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads what [`JobState::as_str`] wrote.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job, without what it was asked and what it answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Job {
    /// Its id: the same in each attempt.
    pub id: Uuid,
    /// What kind of work.
    pub kind: String,
    /// Where it stands.
    pub state: JobState,
    /// The line that it stands in; empty: the tenant's common one.
    pub lane: String,
    /// Among the tenant's jobs the higher is sooner.
    pub priority: i16,
    /// Attempts begun.
    pub attempt: i32,
    /// Attempts after which it is given up.
    pub attempts: i32,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// When it may run, while it has not ended.
    pub due: Option<DateTime<Utc>>,
    /// When the last attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it is too late to start.
    pub deadline: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// When its end is forgotten.
    pub expires_at: Option<DateTime<Utc>>,
    /// The number of the worker that is at it.
    pub worker: Option<i64>,
    /// What went wrong last.
    pub error: Option<String>,
    /// What it last said of its progress.
    pub progress: Option<Value>,
    /// It runs, and was told to stop.
    #[serde(default)]
    pub cancelling: bool,
    /// What kept another like it from being enqueued; only when one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Who asked for it; only when one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The trace of the request that asked for it (`traceparent`); only when one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// What a job was asked and what it answered: the tenant's own data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobBody {
    /// What it was asked.
    pub body: Value,
    /// What it answered, while that is kept.
    pub result: Option<Value>,
}

/// Which jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// Of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(max_length = 100)]
    pub kind: Option<String>,
    /// Most items to answer with: 1 to 500, 50 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Lets all dead letters of a tenant wait again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayDead {}

/// Which dead letters are forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PurgeDead {
    /// Those that ended before this; all unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<DateTime<Utc>>,
}

/// How many it concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobCount {
    /// Jobs.
    pub jobs: i64,
}
