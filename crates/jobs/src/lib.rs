//! Jobs: work that is done later, for one tenant, exactly as fairly as the tenants' plans say.
//!
//! For: typed jobs, enqueueing them in the transaction that they belong to, and workers that run them in their tenant's context; schedules.
//! Not for: the queue's rows and the choice (`insula-kit`, `sql/08*.sql`), or the arithmetic of fairness (`insula-planner`).
//! Always: a job belongs to a tenant; it exists exactly when the transaction that enqueued it committed; it runs inside its tenant's
//! scope; at any moment at most one worker holds it, and an end is believed only from the holder; it ends as done, dead or
//! cancelled, and until then it waits, however many workers die.
//!
//! At least once: a worker that is lost in mid-job is found out, and the job runs again. So effects are made idempotent by the
//! job's id ([`JobContext::id`]), which is the same in each attempt, or by a unique key.

mod context;
mod each;
mod enqueue;
mod error;
mod given;
mod host;
mod job;
mod registry;
mod said;
pub mod schedules;
mod worker;

pub use context::JobContext;
pub use each::{EachTenant, TierOrder};
pub use enqueue::JobState;
pub use enqueue::{BODY_BYTES, Enqueue, JobId, cancel, enqueue, enqueue_all, send, send_all, state};
pub use error::{Error, JobError};
pub use host::{HostContext, HostSide, SweepOptions, SweepState, for_each_tenant};
pub use job::{Job, KindRules};
pub use registry::Jobs;
pub use said::{OUTPUT_BYTES, PROGRESS_BYTES};
pub use schedules::{Cron, CronError, OffPeak, Zone};
pub use worker::{DatabaseName, Keys, Worker, WorkerConfig};
