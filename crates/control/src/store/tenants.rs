//! Tenants and their placements.

use insula_core::{CellName, Isolation, MoveState, Placement, TenantId, TenantNo, TenantState};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::page::time_cursor;
use super::plans::{json, parse, to_json};
use crate::error::Error;
use crate::model::{Page, PageRequest, Tenant, TenantFilter};

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT t.*, p.cell, p.database, p.schema, p.isolation, p.epoch, p.state AS move_state
             FROM catalog.tenant t LEFT JOIN catalog.placement p ON p.tenant = t.id ",
            $tail
        )
    };
}

fn read_placement(row: &PgRow) -> Result<Option<Placement>, Error> {
    let Some(cell) = row.try_get::<Option<String>, _>("cell")? else { return Ok(None) };
    let isolation: String = row.try_get("isolation")?;
    let state: String = row.try_get("move_state")?;
    Ok(Some(Placement {
        cell: parse("cell name", cell.parse::<CellName>())?,
        database: row.try_get::<String, _>("database")?.into(),
        schema: row.try_get::<String, _>("schema")?.into(),
        isolation: parse("isolation", Isolation::from_name(&isolation).ok_or(isolation))?,
        epoch: row.try_get("epoch")?,
        state: parse("move state", MoveState::from_name(&state).ok_or(state))?,
    }))
}

fn read(row: &PgRow) -> Result<Tenant, Error> {
    let state: String = row.try_get("state")?;
    Ok(Tenant {
        id: row.try_get::<Uuid, _>("id")?.into(),
        no: parse("tenant number", TenantNo::new(row.try_get("no")?).ok_or("not positive"))?,
        slug: parse("slug", row.try_get::<String, _>("slug")?.parse())?,
        name: row.try_get("name")?,
        plan: parse("plan name", row.try_get::<String, _>("plan")?.parse())?,
        state: parse("tenant state", TenantState::from_name(&state).ok_or(state))?,
        settings: json("tenant's settings", row.try_get("settings")?)?,
        features: json("tenant's features", row.try_get("features")?)?,
        limits: json("tenant's limits", row.try_get("limits")?)?,
        placement: read_placement(row)?,
        schema_version: row.try_get("schema_version")?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        deleted_at: row.try_get("deleted_at")?,
    })
}

/// By slug, else by id (a slug may look like an id; the name that people chose wins).
pub(crate) async fn find(conn: &mut PgConnection, reference: &str) -> Result<Tenant, Error> {
    let missing = || Error::not_found("tenant", reference.chars().take(80).collect::<String>());
    if reference.contains('\0') {
        return Err(missing());
    }
    let row = sqlx::query(select!("WHERE t.slug = $1")).bind(reference).fetch_optional(&mut *conn).await?;
    let row = match (row, reference.parse::<Uuid>()) {
        (Some(row), _) => row,
        (None, Ok(id)) => sqlx::query(select!("WHERE t.id = $1")).bind(id).fetch_optional(conn).await?.ok_or_else(missing)?,
        (None, Err(_)) => return Err(missing()),
    };
    read(&row)
}

pub(crate) async fn get(conn: &mut PgConnection, id: TenantId) -> Result<Option<Tenant>, Error> {
    let row = sqlx::query(select!("WHERE t.id = $1")).bind(id.uuid()).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

/// Locks a tenant's row against other changes.
pub(crate) async fn lock(conn: &mut PgConnection, id: TenantId) -> Result<Option<Tenant>, Error> {
    let row = sqlx::query(select!("WHERE t.id = $1 FOR UPDATE OF t")).bind(id.uuid()).fetch_optional(conn).await?;
    row.as_ref().map(read).transpose()
}

/// Oldest first. Index: `tenant_page`; by cell `placement_cell`.
pub(crate) async fn list(conn: &mut PgConnection, filter: &TenantFilter, page: &PageRequest) -> Result<Page<Tenant>, Error> {
    let after = page.time_key()?;
    let rows = sqlx::query(select!(
        "WHERE ($1::timestamptz IS NULL OR (t.created_at, t.id) > ($1, $2))
           AND CASE WHEN $3::text IS NULL THEN t.state <> 'deleted' ELSE t.state = $3 END
           AND ($4::text IS NULL OR t.plan = $4) AND ($5::text IS NULL OR p.cell = $5)
           AND ($6::text IS NULL OR strpos(lower(t.slug || ' ' || t.name), lower($6)) > 0)
         ORDER BY t.created_at, t.id LIMIT $7"
    ))
    .bind(after.map(|k| k.at))
    .bind(after.map(|k| k.id))
    .bind(filter.state.map(TenantState::as_str))
    .bind(filter.plan.as_ref().map(AsRef::as_ref))
    .bind(filter.cell.as_ref().map(AsRef::as_ref))
    .bind(&filter.text)
    .bind(page.rows())
    .fetch_all(conn)
    .await?;
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(page.page(items, |t| time_cursor(t.created_at, t.id.uuid())))
}

/// Writes the changeable fields of `tenant` and counts its version up.
pub(crate) async fn update(conn: &mut PgConnection, tenant: &Tenant) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.tenant SET name = $2, plan = $3, settings = $4, features = $5, limits = $6, version = version + 1,
             updated_at = now() WHERE id = $1",
    )
    .bind(tenant.id.uuid())
    .bind(&tenant.name)
    .bind(tenant.plan.as_str())
    .bind(to_json(&tenant.settings)?)
    .bind(to_json(&tenant.features)?)
    .bind(to_json(&tenant.limits)?)
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets the state; `deleted_at` follows it.
pub(crate) async fn set_state(conn: &mut PgConnection, id: TenantId, state: TenantState) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.tenant SET state = $2, version = version + 1, updated_at = now(),
             deleted_at = CASE $2 WHEN 'deleted' THEN coalesce(deleted_at, now()) END
         WHERE id = $1 AND state <> $2",
    )
    .bind(id.uuid())
    .bind(state.as_str())
    .execute(conn)
    .await?;
    Ok(())
}
