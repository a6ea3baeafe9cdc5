//! Counts, and how they came to be over the last month.

use chrono::NaiveDate;
use insula::{Kind, Result, Tenant, TenantTx};
use serde::Serialize;
use sqlx::FromRow;

use crate::tags;

/// Days of the series.
pub const DAYS: i32 = 30;

/// The dashboard.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize, FromRow)]
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
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Day {
    /// In the workspace's own time zone.
    pub day: NaiveDate,
    /// Documents made.
    pub created: i64,
    /// Changes to documents.
    pub edited: i64,
}

/// Reads the dashboard: counts, which may be a second old. The days are those of the workspace's time zone; of UTC when the database
/// does not know the zone (indexes `documents_created`, `document_versions_created`).
///
/// # Errors
/// As the database says.
pub async fn read(tenant: &Tenant) -> Result<Dashboard> {
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

async fn read_in(tenant: &Tenant, zone: &str) -> Result<Dashboard> {
    tenant
        .read(|tx| {
            let zone = zone.to_owned();
            Box::pin(async move {
                let totals = sqlx::query_as(
                    "SELECT (SELECT count(*) FROM documents) AS documents, (SELECT count(*) FROM document_versions) AS versions,
                            (SELECT count(DISTINCT tag) FROM tags) AS tags, (SELECT count(*) FROM users) AS users",
                )
                .fetch_one(&mut *tx)
                .await?;
                Ok(Dashboard { totals, top_tags: tags::counts(tx, 12).await?, days: series(tx, &zone).await? })
            })
        })
        .await
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
