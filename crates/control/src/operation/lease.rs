//! Who works on what: claims with a lease, and the heartbeat that keeps it.
//!
//! Always: on connections that do not wait for the disk. A lease that a crash of Postgres forgets is taken anew; the
//! record of a step is refused to whoever no longer holds it.

use std::time::Duration;

use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::work::Job;
use crate::error::Error;

/// A claimed operation.
pub(crate) struct Claimed {
    pub(crate) kind: String,
    pub(crate) job: Job,
    /// Somebody had it before, and left it unfinished.
    pub(crate) resumed: bool,
}

/// Claims up to `most` runnable operations: nobody's, those whose lease has run out, and those that carry our name and
/// that we do not have in hand (we lost sight of them when the catalog was away). Index: `operation_runnable`.
pub(crate) async fn claim(
    conn: &mut PgConnection,
    owner: &str,
    lease: Duration,
    in_hand: &[Uuid],
    most: usize,
) -> Result<Vec<Claimed>, Error> {
    let rows = sqlx::query(
        "UPDATE catalog.operation o SET lease_owner = $1, lease_until = now() + make_interval(secs => $2), updated_at = now(),
             state = CASE o.state WHEN 'pending' THEN 'running' ELSE o.state END
         FROM (SELECT id, lease_owner IS NOT NULL AS resumed FROM catalog.operation
               WHERE state IN ('pending', 'running', 'undoing') AND run_after <= now()
                 AND (lease_owner IS NULL OR lease_until < now() OR lease_owner = $1) AND id <> ALL ($3)
               ORDER BY run_after LIMIT $4 FOR UPDATE SKIP LOCKED) c
         WHERE o.id = c.id
         RETURNING o.id, o.kind, o.tenant, o.key, o.input, o.memo, o.output, o.state, o.steps_done, o.attempts, o.error,
             o.created_by, c.resumed",
    )
    .bind(owner)
    .bind(lease.as_secs_f64())
    .bind(in_hand)
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &sqlx::postgres::PgRow) -> Result<Claimed, Error> {
    Ok(Claimed {
        kind: row.try_get("kind")?,
        resumed: row.try_get("resumed")?,
        job: Job {
            id: row.try_get("id")?,
            tenant: row.try_get("tenant")?,
            key: row.try_get("key")?,
            actor: row.try_get("created_by")?,
            input: row.try_get("input")?,
            memo: row.try_get("memo")?,
            output: row.try_get("output")?,
            undoing: row.try_get::<String, _>("state")? == "undoing",
            steps_done: usize::try_from(row.try_get::<i32, _>("steps_done")?).unwrap_or(0),
            attempts: row.try_get("attempts")?,
            error: row.try_get("error")?,
        },
    })
}

/// Keeps the leases of what is in hand.
pub(crate) async fn keep(conn: &mut PgConnection, owner: &str, lease: Duration, in_hand: &[Uuid]) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.operation SET lease_until = now() + make_interval(secs => $2) WHERE lease_owner = $1 AND id = ANY ($3)",
    )
    .bind(owner)
    .bind(lease.as_secs_f64())
    .bind(in_hand)
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets everything go that carries our name, at the end of a process: others need not wait for the lease to run out.
pub(crate) async fn release(conn: &mut PgConnection, owner: &str) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.operation SET lease_owner = NULL, lease_until = NULL WHERE lease_owner = $1 AND finished_at IS NULL",
    )
    .bind(owner)
    .execute(conn)
    .await?;
    Ok(())
}

/// When the next operation that waits is due, in seconds from now.
pub(crate) async fn next_due(conn: &mut PgConnection) -> Result<Option<f64>, Error> {
    Ok(sqlx::query_scalar(
        "SELECT extract(epoch FROM min(greatest(run_after, coalesce(lease_until, run_after))) - now())::float8
         FROM catalog.operation WHERE state IN ('pending', 'running', 'undoing')",
    )
    .fetch_one(conn)
    .await?)
}
