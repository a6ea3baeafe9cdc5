//! What tenants used, as data planes count it.

use chrono::{DateTime, TimeDelta, Timelike as _, Utc};
use insula_api::usage::{Amounts, MOST_ENTRIES, TenantUsage, UsageBatch, UsageQuery, UsageReceipt};
use serde_json::json;

use super::Control;
use crate::error::Error;
use crate::store;

/// Older hours are billed by now.
const OLDEST: TimeDelta = TimeDelta::days(35);

/// Clocks may differ by this much.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// The longest time that one answer tells of.
const LONGEST: TimeDelta = TimeDelta::days(366);

/// More than anybody uses in an hour; sums of it stay within what the catalog holds.
const MOST: u64 = 1 << 53;

impl Control {
    /// Adds a batch, once: in one transaction with its event.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub async fn add_usage(&self, batch: &UsageBatch) -> Result<UsageReceipt, Error> {
        let part = check(batch, Utc::now())?;
        let mut tx = self.catalog_pool().begin().await?;
        if !store::usage::arrived(&mut tx, batch.id, part).await? {
            return Ok(UsageReceipt { repeated: true, unknown: 0 });
        }
        let added = store::usage::add(&mut tx, &batch.entries).await?;
        let known: u64 = added.iter().map(|added| added.entries).sum();
        if !added.is_empty() {
            let payload = json!({ "batch": batch.id, "part": batch.part, "entries": added });
            store::outbox::insert(&mut tx, "usage.recorded", None, &payload).await?;
        }
        store::usage::forget(&mut tx).await?;
        tx.commit().await?;
        Ok(UsageReceipt { repeated: false, unknown: (batch.entries.len() as u64).saturating_sub(known) })
    }

    /// What a tenant used, by the hour.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for times in the wrong order or too far apart.
    pub async fn usage(&self, tenant: &str, query: &UsageQuery) -> Result<TenantUsage, Error> {
        let to = query.to.unwrap_or_else(Utc::now);
        let from = query.from.unwrap_or(to - TimeDelta::days(1));
        if from > to || to - from > LONGEST {
            return Err(Error::invalid("from", "before `to`, and at most 366 days"));
        }
        let mut conn = self.catalog_pool().acquire().await?;
        let tenant = store::tenants::find(&mut conn, tenant).await?;
        let hours = store::usage::hours(&mut conn, tenant.id.uuid(), from, to).await?;
        let total = hours.iter().fold(Amounts::default(), |sum, hour| plus(sum, hour.used));
        Ok(TenantUsage { hours, total })
    }
}

const fn values(used: &Amounts) -> [u64; 6] {
    [used.requests, used.bytes_in, used.bytes_out, used.cpu_us, used.database_us, used.rows]
}

const fn plus(sum: Amounts, used: Amounts) -> Amounts {
    Amounts {
        requests: sum.requests.saturating_add(used.requests),
        bytes_in: sum.bytes_in.saturating_add(used.bytes_in),
        bytes_out: sum.bytes_out.saturating_add(used.bytes_out),
        cpu_us: sum.cpu_us.saturating_add(used.cpu_us),
        database_us: sum.database_us.saturating_add(used.database_us),
        rows: sum.rows.saturating_add(used.rows),
    }
}

/// The part's number as the catalog holds it.
fn check(batch: &UsageBatch, now: DateTime<Utc>) -> Result<i32, Error> {
    if batch.entries.len() > MOST_ENTRIES {
        return Err(Error::invalid("entries", format!("at most {MOST_ENTRIES}: send the rest as another part")));
    }
    for entry in &batch.entries {
        let hour = entry.hour;
        if hour.minute() != 0 || hour.second() != 0 || hour.nanosecond() != 0 {
            return Err(Error::invalid("entries", format!("hour: {hour} is not the beginning of an hour")));
        }
        if hour > now + AHEAD || hour < now - OLDEST {
            return Err(Error::invalid("entries", format!("hour: {hour} is not within the last 35 days")));
        }
        if values(&entry.used).into_iter().any(|amount| amount > MOST) {
            return Err(Error::invalid("entries", format!("used: amounts are at most {MOST}")));
        }
    }
    i32::try_from(batch.part).map_err(|_| Error::invalid("part", "at most 2147483647"))
}
