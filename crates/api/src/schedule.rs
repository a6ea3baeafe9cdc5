//! Schedules: jobs of a tenant that come again, and what the host does again and again.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Who wants a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleOrigin {
    /// The application's code declares it, for every tenant.
    Code,
    /// It was made for this tenant.
    Tenant,
}

impl ScheduleOrigin {
    /// As the queue writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Tenant => "tenant",
        }
    }
}

/// A schedule, without what its jobs are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Schedule {
    /// Its name, one of the tenant's.
    pub name: String,
    /// Who wants it.
    pub origin: ScheduleOrigin,
    /// What kind of job comes.
    pub kind: String,
    /// When: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// Where that is the time (IANA); the tenant's own time zone unless it was given one. Null until a worker has seen it.
    pub zone: Option<String>,
    /// It does not come.
    pub paused: bool,
    /// When it comes next; null while it is paused, before a worker has seen it, and when it never comes.
    pub next_at: Option<DateTime<Utc>>,
    /// When it came last.
    pub last_at: Option<DateTime<Utc>>,
    /// Why it never comes.
    pub error: Option<String>,
}

/// A schedule of the host, which the application's code declares: it comes once, wherever workers are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HostSchedule {
    /// Its name.
    pub name: String,
    /// When: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// Where that is the time (IANA).
    pub zone: String,
    /// It does not come.
    pub paused: bool,
    /// When it comes next; null while it is paused, before a worker has seen it, and when it never comes.
    pub next_at: Option<DateTime<Utc>>,
    /// The firing that is at work or is to be tried again.
    pub firing: Option<DateTime<Utc>>,
    /// Tries of that firing.
    pub attempt: i32,
    /// When one last ended.
    pub last_at: Option<DateTime<Utc>>,
    /// Why the last one, or the last try, did not end well.
    pub error: Option<String>,
}
