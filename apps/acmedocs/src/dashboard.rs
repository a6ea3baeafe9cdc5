//! Counts, and how they came to be over the last month.
//!
//! Always: what is shown is remembered for the workspace alone, and forgotten with every change to what it counts ([`commit`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use insula::cache::Resource;
use insula::{Kind, Result, Tenant, TenantTx};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::tags;

/// Days of the series.
pub const DAYS: i32 = 30;

/// By the time zone in which days are counted. A day ends by itself, so a minute is the longest that it may be behind.
const DASHBOARD: Resource<str, Dashboard> = Resource::new("dashboard").ttl(Duration::from_secs(60));

/// The dashboard.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Dashboard {
    /// How many there are.
    #[serde(flatten)]
    pub totals: Totals,
    /// The most used tags.
    pub top_tags: Vec<tags::Count>,
    /// The last 30 days, oldest first.
    pub days: Vec<Day>,
}

/// Counts.
#[derive(Clone, Debug, Deserialize, Serialize, FromRow)]
pub struct Totals {
    /// Documents.
    pub documents: i64,
    /// Versions of documents.
    pub versions: i64,
    /// Different tags.
    pub tags: i64,
    /// Users.
    pub users: i64,
}

/// One day.
#[derive(Clone, Debug, Deserialize, Serialize, FromRow)]
pub struct Day {
    /// In the workspace's own time zone.
    pub day: NaiveDate,
    /// Documents made.
    pub created: i64,
    /// Changes to documents.
    pub edited: i64,
}

/// The dashboard, for somebody who may see it: remembered, or counted.
///
/// # Errors
/// As the database says.
pub async fn of(tenant: &Tenant) -> Result<Arc<Dashboard>> {
    let zone = tenant.settings().time_zone.as_str();
    tenant.cache().get_or_load(&DASHBOARD, zone, async || read(tenant).await).await
}

/// Commits a change to what the dashboard counts, and forgets what was counted before; also when nobody knows whether the commit succeeded.
///
/// # Errors
/// As the database says.
pub async fn commit(tenant: &Tenant, tx: TenantTx) -> Result<()> {
    let committed = tx.commit().await;
    tenant.cache().forget_all(&DASHBOARD);
    Ok(committed?)
}

/// Counts. The days are those of the workspace's time zone; of UTC when the database does not know the zone (indexes `documents_created`,
/// `document_versions_created`).
async fn read(tenant: &Tenant) -> Result<Dashboard> {
    let zone = tenant.settings().time_zone.as_str();
    match read_in(tenant, zone).await {
        // That ended the transaction.
        Err(error) if error.kind() == Kind::Invalid => {
            tracing::warn!(zone, "the database does not know this time zone: counting days in UTC");
            read_in(tenant, "UTC").await
        }
        dashboard => dashboard,
    }
}

/// On a replica only if it has all that was committed until now: what is remembered must not be older than what was forgotten.
async fn read_in(tenant: &Tenant, zone: &str) -> Result<Dashboard> {
    match count(tenant.begin_read_after(Instant::now()).await?, zone).await {
        // The replica was in the way of what it replays, or went away.
        Err(error) if error.kind() != Kind::Invalid => count(tenant.begin().await?, zone).await,
        counted => counted,
    }
}

async fn count(mut tx: TenantTx, zone: &str) -> Result<Dashboard> {
    let totals = sqlx::query_as(
        "SELECT (SELECT count(*) FROM documents) AS documents, (SELECT count(*) FROM document_versions) AS versions,
                (SELECT count(DISTINCT tag) FROM tags) AS tags, (SELECT count(*) FROM users) AS users",
    );
    let totals = totals.fetch_one(&mut tx).await?;
    let dashboard = Dashboard { totals, top_tags: tags::counts(&mut tx, 12).await?, days: series(&mut tx, zone).await? };
    tx.commit().await?;
    Ok(dashboard)
}

async fn series(tx: &mut TenantTx, zone: &str) -> Result<Vec<Day>> {
    let days = sqlx::query_as(
        "WITH today AS (SELECT (now() AT TIME ZONE $1)::date AS day),
         made AS (
             SELECT (created_at AT TIME ZONE $1)::date AS day, count(*) AS n FROM documents
             WHERE created_at > now() - make_interval(days => $2 + 1) GROUP BY 1
         ), changed AS (
             SELECT (created_at AT TIME ZONE $1)::date AS day, count(*) AS n FROM document_versions
             WHERE created_at > now() - make_interval(days => $2 + 1) AND version > 1 GROUP BY 1
         )
         SELECT d.day, coalesce(made.n, 0) AS created, coalesce(changed.n, 0) AS edited
         FROM today, LATERAL (SELECT today.day - n AS day FROM generate_series(0, $2 - 1) n) d
         LEFT JOIN made ON made.day = d.day LEFT JOIN changed ON changed.day = d.day ORDER BY d.day",
    );
    Ok(days.bind(zone).bind(DAYS).fetch_all(&mut *tx).await?)
}
