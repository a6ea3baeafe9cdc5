//! What the engine writes about an operation.
//!
//! Always: a write goes through only for the engine that holds the lease; who lost it learns so here and lets go.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::step::Saga;
use super::work::{Event, Job};
use crate::error::Error;

/// How an operation stands after this record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standing {
    /// Ours for this long.
    Held(Duration),
    /// Anyone's after this pause.
    Free(Duration),
    /// Done.
    Done,
    /// Failed, and undone.
    Failed,
}

impl Standing {
    fn state(self, job: &Job) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            _ if job.undoing => "undoing",
            Self::Free(_) if job.attempts == 0 && job.error.is_none() => "pending",
            _ => "running",
        }
    }

    /// Seconds of lease, and seconds of pause.
    fn times(self) -> (Option<f64>, f64) {
        match self {
            Self::Held(lease) => (Some(lease.as_secs_f64()), 0.0),
            Self::Free(pause) => (None, pause.as_secs_f64()),
            Self::Done | Self::Failed => (None, 0.0),
        }
    }

    const fn finished(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

fn steps(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The name of the step at hand; empty when there is none left.
fn step_at_hand(saga: &Saga, job: &Job, standing: Standing) -> &'static str {
    if standing.finished() {
        return "";
    }
    let at = if job.undoing { job.steps_done.saturating_sub(1) } else { job.steps_done };
    saga.steps.get(at).map_or("", |s| s.name())
}

/// Inserts the row of a new operation; false when its key is taken.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    owner: &str,
    saga: &Saga,
    job: &Job,
    standing: Standing,
) -> Result<bool, Error> {
    let (lease, pause) = standing.times();
    let done = sqlx::query(
        "INSERT INTO catalog.operation (id, kind, tenant, key, input, state, step, steps_done, steps_total, memo, output,
             lease_owner, lease_until, run_after, created_by, finished_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, CASE WHEN $12::float8 IS NOT NULL THEN $13 END,
             now() + make_interval(secs => $12), now() + make_interval(secs => $14), $15, CASE WHEN $16 THEN now() END)
         ON CONFLICT (key) DO NOTHING",
    )
    .bind(job.id)
    .bind(saga.kind)
    .bind(job.tenant)
    .bind(&job.key)
    .bind(&job.input)
    .bind(standing.state(job))
    .bind(step_at_hand(saga, job, standing))
    .bind(steps(job.steps_done))
    .bind(steps(saga.steps.len()))
    .bind(&job.memo)
    .bind(&job.output)
    .bind(lease)
    .bind(owner)
    .bind(pause)
    .bind(&job.actor)
    .bind(standing.finished())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Records where an operation stands, for the holder of its lease.
pub(crate) async fn save(conn: &mut PgConnection, owner: &str, saga: &Saga, job: &Job, standing: Standing) -> Result<(), Error> {
    let (lease, pause) = standing.times();
    let done = sqlx::query(
        "UPDATE catalog.operation SET state = $3, step = $4, steps_done = $5, memo = $6, output = $7, error = $8, attempts = $9,
             lease_owner = CASE WHEN $10::float8 IS NOT NULL THEN $2 END, lease_until = now() + make_interval(secs => $10),
             run_after = now() + make_interval(secs => $11), updated_at = now(), finished_at = CASE WHEN $12 THEN now() END
         WHERE id = $1 AND lease_owner = $2",
    )
    .bind(job.id)
    .bind(owner)
    .bind(standing.state(job))
    .bind(step_at_hand(saga, job, standing))
    .bind(steps(job.steps_done))
    .bind(&job.memo)
    .bind(&job.output)
    .bind(&job.error)
    .bind(job.attempts)
    .bind(lease)
    .bind(pause)
    .bind(standing.finished())
    .execute(conn)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::LeaseLost(job.id)) }
}

/// Appends what happened.
pub(crate) async fn events(conn: &mut PgConnection, operation: Uuid, events: &[Event]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let at: Vec<_> = events.iter().map(|e| e.at).collect();
    let step: Vec<_> = events.iter().map(|e| e.step).collect();
    let what: Vec<_> = events.iter().map(|e| e.what).collect();
    let detail: Vec<_> = events.iter().map(|e| e.detail.as_str()).collect();
    sqlx::query(
        "INSERT INTO catalog.operation_event (operation, at, step, what, detail)
         SELECT $1, e.* FROM unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[]) AS e",
    )
    .bind(operation)
    .bind(at)
    .bind(step)
    .bind(what)
    .bind(detail)
    .execute(conn)
    .await?;
    Ok(())
}

/// Shows people which step is at hand. On a connection that does not wait for the disk: losing it loses nothing.
pub(crate) async fn show(conn: &mut PgConnection, owner: &str, saga: &Saga, job: &Job) -> Result<(), Error> {
    let at = if job.undoing { job.steps_done.saturating_sub(1) } else { job.steps_done };
    sqlx::query("UPDATE catalog.operation SET step = $3, updated_at = now() WHERE id = $1 AND lease_owner = $2")
        .bind(job.id)
        .bind(owner)
        .bind(saga.steps.get(at).map_or("", |s| s.name()))
        .execute(conn)
        .await?;
    Ok(())
}
