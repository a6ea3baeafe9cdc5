//! Rows as Postgres hands them over, and how they are read. A row that cannot be read is reported and left out: one bad row
//! must not take the others' service away, and a tenant about whom something is unclear is not served.

use insula_core::{Isolation, MoveState, Placement, Plan, TenantId, TenantNo, TenantState};
use sqlx::FromRow;
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::Error;
use crate::document::{Canary, Document, DocumentVersion};
use crate::row::{Cell, CellState, DatabaseId, DatabaseRow, TenantRow, Tls};

fn report<T>(what: impl FnOnce() -> String, read: Result<T, String>) -> Option<T> {
    read.map_err(|detail| tracing::error!(error = %Error::Row { what: what(), detail }, "left out")).ok()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[derive(FromRow)]
pub(super) struct PlanRecord {
    pub(super) name: String,
    tier: String,
    isolation: String,
    limits: String,
    features: String,
}

impl PlanRecord {
    pub(super) const ALL: &'static str = "SELECT name, tier::text, isolation, limits::text, features::text FROM catalog.plan";
    pub(super) const SOME: &'static str =
        "SELECT name, tier::text, isolation, limits::text, features::text FROM catalog.plan WHERE name = ANY ($1)";

    pub(super) fn read(self) -> Option<Plan> {
        let read = || {
            Ok(Plan {
                name: self.name.parse().map_err(text)?,
                tier: serde_json::from_str(&self.tier).map_err(text)?,
                isolation: Isolation::from_name(&self.isolation).ok_or("unknown isolation")?,
                limits: serde_json::from_str(&self.limits).map_err(text)?,
                features: serde_json::from_str(&self.features).map_err(text)?,
                temporary: BTreeMap::new(),
            })
        };
        report(|| format!("plan {}", self.name), read())
    }
}

macro_rules! cells {
    ($rest:literal) => {
        concat!("SELECT name, host, port, tls, state, app_url, app_versions::text, replicas::text FROM catalog.cell ", $rest)
    };
}

#[derive(FromRow)]
pub(super) struct CellRecord {
    pub(super) name: String,
    host: Option<String>,
    port: Option<i32>,
    tls: String,
    state: String,
    app_url: Option<String>,
    app_versions: String,
    replicas: String,
}

impl CellRecord {
    pub(super) const ALL: &'static str = cells!("");
    pub(super) const SOME: &'static str = cells!("WHERE name = ANY ($1)");

    pub(super) fn read(self) -> Option<Cell> {
        let read = || {
            Ok(Cell {
                name: self.name.parse().map_err(text)?,
                host: self.host.as_deref().map(Into::into),
                port: self.port.map(u16::try_from).transpose().map_err(text)?,
                tls: Tls::from_name(&self.tls).ok_or("unknown tls mode")?,
                state: CellState::from_name(&self.state).ok_or("unknown state")?,
                app_url: self.app_url.as_deref().map(Into::into),
                app_versions: serde_json::from_str(&self.app_versions).map_err(text)?,
                replicas: serde_json::from_str(&self.replicas).map_err(text)?,
            })
        };
        report(|| format!("cell {}", self.name), read())
    }
}

#[derive(FromRow)]
pub(super) struct DatabaseRecord {
    cell: String,
    name: String,
    fence: i64,
    kid: i32,
}

impl DatabaseRecord {
    pub(super) const ALL: &'static str = "SELECT cell, name, fence, kid FROM catalog.cell_database";
    pub(super) const SOME: &'static str = "SELECT d.cell, d.name, d.fence, d.kid FROM catalog.cell_database d \
         JOIN unnest($1::text[], $2::text[]) AS wanted (cell, name) ON d.cell = wanted.cell AND d.name = wanted.name";

    pub(super) fn read(self) -> Option<DatabaseRow> {
        let cell = report(|| format!("database {}/{}", self.cell, self.name), self.cell.parse().map_err(text))?;
        Some(DatabaseRow { id: DatabaseId { cell, name: self.name.into() }, fence: self.fence, kid: self.kid })
    }
}

macro_rules! documents {
    ($rest:literal) => {
        concat!(
            "SELECT d.name, d.stable, s.body::text AS stable_body, d.canary, c.body::text AS canary_body, \
             d.canary_percent, d.canary_tenants FROM catalog.document d \
             LEFT JOIN catalog.document_version s ON s.name = d.name AND s.version = d.stable \
             LEFT JOIN catalog.document_version c ON c.name = d.name AND c.version = d.canary ",
            $rest
        )
    };
}

#[derive(FromRow)]
pub(super) struct DocumentRecord {
    pub(super) name: String,
    stable: Option<i64>,
    stable_body: Option<String>,
    canary: Option<i64>,
    canary_body: Option<String>,
    canary_percent: i32,
    canary_tenants: Vec<Uuid>,
}

impl DocumentRecord {
    pub(super) const ALL: &'static str = documents!("");
    pub(super) const SOME: &'static str = documents!("WHERE d.name = ANY ($1)");

    pub(super) fn read(self) -> Option<Document> {
        let version = |number: Option<i64>, body: Option<&str>| match (number, body) {
            (Some(version), Some(body)) => {
                Ok(Some(DocumentVersion { version, value: serde_json::from_str(body).map_err(text)? }))
            }
            _ => Ok::<_, String>(None),
        };
        let read = || {
            let canary = version(self.canary, self.canary_body.as_deref())?.map(|version| Canary {
                version,
                // The table holds 0 to 100.
                percent: u8::try_from(self.canary_percent).unwrap_or(0),
                tenants: self.canary_tenants.iter().map(|id| TenantId::from(*id)).collect(),
            });
            let stable = version(self.stable, self.stable_body.as_deref())?;
            Ok(Document { name: self.name.as_str().into(), stable, canary })
        };
        report(|| format!("document {}", self.name), read())
    }
}

#[derive(FromRow)]
pub(super) struct TenantRecord {
    id: Uuid,
    pub(super) no: i64,
    slug: String,
    name: String,
    state: String,
    plan: String,
    features: String,
    limits: String,
    settings: String,
    cell: String,
    database: String,
    schema: String,
    isolation: String,
    epoch: i64,
    move_state: String,
    schema_version: i64,
    domains: Option<Vec<String>>,
}

macro_rules! tenants {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.no, t.slug, t.name, t.state, t.plan, t.features::text, t.limits::text, t.settings::text, \
             p.cell, p.database, p.schema, p.isolation, p.epoch, p.state AS move_state, t.schema_version, \
             (SELECT array_agg(d.host) FROM catalog.domain d WHERE d.tenant = t.id AND d.verified_at IS NOT NULL) AS domains \
             FROM catalog.tenant t JOIN catalog.placement p ON p.tenant = t.id \
             WHERE t.state IN ('active', 'suspended') ",
            $rest
        )
    };
}

impl TenantRecord {
    // tenant_no_key
    pub(super) const PAGE: &'static str = tenants!("AND t.no > $1 ORDER BY t.no LIMIT $2");
    pub(super) const SOME: &'static str = tenants!("AND t.id = ANY ($1)");

    pub(super) fn read(self) -> Option<TenantRow> {
        let id = self.id;
        report(|| format!("tenant {id}"), self.parse())
    }

    fn parse(self) -> Result<TenantRow, String> {
        // Looks are not worth an outage.
        let settings = serde_json::from_str(&self.settings).unwrap_or_else(|error| {
            tracing::warn!(tenant = %self.id, %error, "settings cannot be read: the defaults hold");
            Default::default()
        });
        Ok(TenantRow {
            id: self.id.into(),
            no: TenantNo::new(self.no).ok_or("its number is not positive")?,
            slug: self.slug.parse().map_err(text)?,
            name: self.name,
            state: TenantState::from_name(&self.state).ok_or("unknown state")?,
            plan: self.plan.parse().map_err(text)?,
            features: serde_json::from_str(&self.features).map_err(text)?,
            limits: serde_json::from_str(&self.limits).map_err(text)?,
            settings,
            placement: Placement {
                cell: self.cell.parse().map_err(text)?,
                database: self.database.into(),
                schema: self.schema.into(),
                isolation: Isolation::from_name(&self.isolation).ok_or("unknown isolation")?,
                epoch: self.epoch,
                state: MoveState::from_name(&self.move_state).ok_or("unknown move state")?,
            },
            schema_version: self.schema_version,
            domains: self.domains.unwrap_or_default(),
        })
    }
}
