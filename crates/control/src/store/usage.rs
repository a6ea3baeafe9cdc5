//! What tenants used.

use chrono::{DateTime, Utc};
use insula_api::usage::{Amounts, UsageEntry, UsageHour};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::error::Error;

/// Days for which arrived batches are remembered: longer than a batch may be, so that none is counted twice.
const REMEMBERED: i32 = 40;

/// Takes note of a batch; false when it was there.
pub(crate) async fn arrived(conn: &mut PgConnection, id: Uuid, part: i32) -> Result<bool, Error> {
    let done = sqlx::query("INSERT INTO catalog.usage_batch (id, part) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(part)
        .execute(&mut *conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// One tenant's hour of a batch.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Added {
    pub(crate) tenant: Uuid,
    #[serde(flatten)]
    pub(crate) hour: UsageHour,
    /// Of the batch's.
    #[serde(skip)]
    pub(crate) entries: u64,
}

/// Adds what was used, and answers what of it was some tenant's. In the order of the key, so that two who add do not wait for each other in a
/// circle.
pub(crate) async fn add(conn: &mut PgConnection, entries: &[UsageEntry]) -> Result<Vec<Added>, Error> {
    let column = |of: fn(&Amounts) -> u64| -> Vec<i64> {
        // Checked before: amounts are far below.
        entries.iter().map(|entry| i64::try_from(of(&entry.used)).unwrap_or(i64::MAX)).collect()
    };
    let rows = sqlx::query(
        "WITH added AS (
             SELECT t.id, u.hour, sum(u.requests)::bigint AS requests, sum(u.bytes_in)::bigint AS bytes_in, sum(u.bytes_out)::bigint AS bytes_out,
                    sum(u.cpu_us)::bigint AS cpu_us, sum(u.database_us)::bigint AS database_us, sum(u.rows)::bigint AS rows, count(*) AS entries
             FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
                  AS u (no, hour, requests, bytes_in, bytes_out, cpu_us, database_us, rows)
             JOIN catalog.tenant t ON t.no = u.no GROUP BY t.id, u.hour ORDER BY t.id, u.hour
         ), stored AS (
             INSERT INTO catalog.usage AS old (tenant, hour, requests, bytes_in, bytes_out, cpu_us, database_us, rows)
             SELECT id, hour, requests, bytes_in, bytes_out, cpu_us, database_us, rows FROM added
             ON CONFLICT (tenant, hour) DO UPDATE SET
                 requests = old.requests + excluded.requests, bytes_in = old.bytes_in + excluded.bytes_in,
                 bytes_out = old.bytes_out + excluded.bytes_out, cpu_us = old.cpu_us + excluded.cpu_us,
                 database_us = old.database_us + excluded.database_us, rows = old.rows + excluded.rows, updated_at = now()
         )
         SELECT * FROM added",
    )
    .bind(entries.iter().map(|entry| entry.tenant_no).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.hour).collect::<Vec<_>>())
    .bind(column(|used| used.requests))
    .bind(column(|used| used.bytes_in))
    .bind(column(|used| used.bytes_out))
    .bind(column(|used| used.cpu_us))
    .bind(column(|used| used.database_us))
    .bind(column(|used| used.rows))
    .fetch_all(conn)
    .await?;
    let read = |row: &PgRow| {
        let entries = u64::try_from(row.try_get::<i64, _>("entries")?).unwrap_or(0);
        Ok(Added { tenant: row.try_get("id")?, hour: hour(row)?, entries })
    };
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(Error::from)
}

fn hour(row: &PgRow) -> Result<UsageHour, sqlx::Error> {
    let amount = |column: &str| row.try_get::<i64, _>(column).map(|amount| u64::try_from(amount).unwrap_or(0));
    let used = Amounts {
        requests: amount("requests")?,
        bytes_in: amount("bytes_in")?,
        bytes_out: amount("bytes_out")?,
        cpu_us: amount("cpu_us")?,
        database_us: amount("database_us")?,
        rows: amount("rows")?,
    };
    Ok(UsageHour { hour: row.try_get("hour")?, used })
}

/// Forgets batches that nobody will send again. Index: `usage_batch_age`.
pub(crate) async fn forget(conn: &mut PgConnection) -> Result<(), Error> {
    let sql = "DELETE FROM catalog.usage_batch WHERE received_at < now() - make_interval(days => $1)";
    sqlx::query(sql).bind(REMEMBERED).execute(conn).await?;
    Ok(())
}

/// Hours of one tenant, oldest first. The primary key.
pub(crate) async fn hours(
    conn: &mut PgConnection,
    tenant: Uuid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<UsageHour>, Error> {
    let rows = sqlx::query("SELECT * FROM catalog.usage WHERE tenant = $1 AND hour >= $2 AND hour < $3 ORDER BY hour")
        .bind(tenant)
        .bind(from)
        .bind(to)
        .fetch_all(conn)
        .await?;
    rows.iter().map(hour).collect::<Result<_, sqlx::Error>>().map_err(Error::from)
}
