//! The catalog of one: a plan, a cell, a database, a tenant, and no news ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use insula_catalog::row::{Changes, DatabaseId, DatabaseRow, Page, TenantRow};
use insula_catalog::{Cell, CellState, Error, Source, Tls};
use insula_core::feature::Features;
use insula_core::slug::NameError;
use insula_core::{Limits, Plan, TenantSettings, TenantState, Tier};
use sqlx::postgres::PgSslMode;
use tokio::sync::{mpsc, watch};

use super::{Only, SLUG};
use crate::config::Alone;

/// A catalog that never changes.
pub(crate) struct One {
    pages: [Page; 4],
    silence: watch::Sender<()>,
}

/// What a process for one customer knows of it. `features` are the application's own, under those of the settings.
pub(crate) fn source(alone: &Alone, database: &str, features: &Features) -> Result<One, NameError> {
    let Only { id, no, placement } = Only::at(database)?;
    let mut features = features.clone();
    features.extend(alone.features.clone());
    let plan = Plan {
        name: SLUG.parse()?,
        tier: Tier { name: SLUG.into(), weight: 1, pool_guarantee: 0, pool_cap: 100 },
        isolation: placement.isolation,
        limits: limits(),
        features,
        temporary: BTreeMap::new(),
    };
    let cell = Cell {
        name: placement.cell.clone(),
        host: Some(alone.database.get_host().into()),
        port: Some(alone.database.get_port()),
        tls: match alone.database.get_ssl_mode() {
            PgSslMode::Disable => Tls::Disable,
            PgSslMode::Allow | PgSslMode::Prefer => Tls::Prefer,
            PgSslMode::Require => Tls::Require,
            PgSslMode::VerifyCa | PgSslMode::VerifyFull => Tls::VerifyFull,
        },
        state: CellState::Ready,
        app_url: None,
        app_versions: Arc::new([]),
        replicas: Arc::new([]),
    };
    let id_of_database = DatabaseId { cell: placement.cell.clone(), name: placement.database.clone() };
    let tenant = TenantRow {
        id,
        no,
        slug: SLUG.parse()?,
        name: alone.name.clone().unwrap_or_else(|| database.to_owned()),
        state: TenantState::Active,
        plan: plan.name.clone(),
        features: BTreeMap::new(),
        limits: serde_json::Map::new(),
        settings: TenantSettings::default(),
        placement,
        domains: Vec::new(),
        schema_version: 0,
    };
    let pages = [
        Page::Plans(vec![plan]),
        Page::Cells(vec![cell]),
        Page::Databases(vec![DatabaseRow { id: id_of_database, fence: 0, kid: 1 }]),
        Page::Tenants(vec![tenant]),
    ];
    Ok(One { pages, silence: watch::channel(()).0 })
}

/// One customer shares its server with nobody: what protects others is wide, what protects the server stays.
fn limits() -> Limits {
    Limits {
        max_connections: 16,
        max_users: 100_000,
        max_body_bytes: 64 << 20,
        requests_per_second: 10_000,
        request_burst: 10_000,
        ..Limits::default()
    }
}

impl Source for One {
    async fn load(&self, pages: mpsc::Sender<Page>) -> Result<i64, Error> {
        for page in self.pages.clone() {
            pages.send(page).await.map_err(|_| Error::Stopped)?;
        }
        Ok(1)
    }

    async fn changes(&self, _since: i64) -> Result<Changes, Error> {
        Ok(Changes { revision: 1, changes: Vec::new() })
    }

    fn wake_ups(&self) -> watch::Receiver<()> {
        self.silence.subscribe()
    }
}
