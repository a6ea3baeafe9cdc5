//! Plans.

use insula_core::feature::Features;
use insula_core::{Isolation, Plan};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use crate::error::Error;
use crate::model::{Page, PageRequest, PlanRecord, PutPlan};

/// Reads a value that the catalog holds as text or JSON and that only this crate writes.
pub(crate) fn parse<T, E: std::fmt::Display>(what: &str, read: Result<T, E>) -> Result<T, Error> {
    read.map_err(|e| Error::Corrupt(format!("the catalog holds a {what} that cannot be read: {e}")))
}

pub(crate) fn json<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, Error> {
    parse(what, serde_json::from_value(value))
}

/// JSON of a value whose keys are text.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|e| Error::Corrupt(format!("a value cannot be written as JSON: {e}")))
}

fn read(row: &PgRow) -> Result<PlanRecord, Error> {
    let isolation: String = row.try_get("isolation")?;
    Ok(PlanRecord {
        plan: Plan {
            name: parse("plan name", row.try_get::<String, _>("name")?.parse())?,
            tier: json("tier", row.try_get("tier")?)?,
            isolation: parse("isolation", Isolation::from_name(&isolation).ok_or(isolation))?,
            limits: json("plan's limits", row.try_get("limits")?)?,
            features: json("plan's features", row.try_get("features")?)?,
            temporary: Default::default(),
        },
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

pub(crate) async fn get(conn: &mut PgConnection, name: &str) -> Result<Option<PlanRecord>, Error> {
    let row = sqlx::query("SELECT * FROM catalog.plan WHERE name = $1").bind(name).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

pub(crate) async fn list(conn: &mut PgConnection, page: &PageRequest) -> Result<Page<PlanRecord>, Error> {
    let rows = sqlx::query("SELECT * FROM catalog.plan WHERE name > $1 ORDER BY name LIMIT $2")
        .bind(page.name_key()?)
        .bind(page.rows())
        .fetch_all(conn)
        .await?;
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page.page(items, |p| p.plan.name.to_string()))
}

/// Each feature that a plan has, with one of its values: they are of one type.
pub(crate) async fn features(conn: &mut PgConnection) -> Result<Features, Error> {
    let rows: Vec<(String, Value)> = sqlx::query_as(
        "SELECT DISTINCT ON (key) key, value FROM catalog.plan, jsonb_each(features) ORDER BY key, plan.created_at, plan.name",
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|(name, value)| Ok((name, json("plan's features", value)?))).collect()
}

/// Inserts; `None` when the name is taken.
pub(crate) async fn insert(conn: &mut PgConnection, plan: &PutPlan) -> Result<Option<PlanRecord>, Error> {
    let row = sqlx::query(
        "INSERT INTO catalog.plan (name, tier, isolation, limits, features) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (name) DO NOTHING RETURNING *",
    )
    .bind(plan.name.as_str())
    .bind(to_json(&plan.tier)?)
    .bind(plan.isolation.as_str())
    .bind(to_json(&plan.limits)?)
    .bind(to_json(&plan.features)?)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(read).transpose()
}

/// The version of a plan, locked.
pub(crate) async fn lock(conn: &mut PgConnection, name: &str) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar("SELECT version FROM catalog.plan WHERE name = $1 FOR UPDATE").bind(name).fetch_optional(conn).await?)
}

pub(crate) async fn update(conn: &mut PgConnection, plan: &PutPlan) -> Result<PlanRecord, Error> {
    let row = sqlx::query(
        "UPDATE catalog.plan SET tier = $2, isolation = $3, limits = $4, features = $5, version = version + 1, updated_at = now()
         WHERE name = $1 RETURNING *",
    )
    .bind(plan.name.as_str())
    .bind(to_json(&plan.tier)?)
    .bind(plan.isolation.as_str())
    .bind(to_json(&plan.limits)?)
    .bind(to_json(&plan.features)?)
    .fetch_one(conn)
    .await?;
    read(&row)
}
