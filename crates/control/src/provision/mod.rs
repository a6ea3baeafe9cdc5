//! `tenant.provision`: from a request to a tenant at work.
//!
//! validate and place run inside the request's own transaction, so that what is wrong is refused there; create, migrate and
//! seed share one transaction in the tenant's database, so that a tenant is there with its tables and first user or not at
//! all; register and notify share one in the catalog. That is three waits for the disk for a `row` tenant.
//!
//! Always: a thing is named in the catalog (tenant, placement, database) before it is made, so that whatever a crash leaves
//! is known; a tenant's row in `insula.tenant` of its database means that its tables and seed are there too.

mod cell;
mod create;
mod migrate;
mod notify;
mod place;
mod register;
pub(crate) mod remove;
mod seed;
mod validate;

use chrono::{DateTime, Utc};
use insula_core::feature::Overrides;
use insula_core::placement::role_of;
use insula_core::{CellName, Isolation, PlanName, Slug, TenantId, TenantNo};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::model::{Cell, CreateTenant, LimitOverrides, Settings};
use crate::operation::step::Saga;
use crate::operation::work::Work;
use crate::store;
use crate::store::plans::parse;

pub(crate) static SAGA: Saga = Saga {
    kind: "tenant.provision",
    steps: &[
        &validate::Validate,
        &place::Place,
        &cell::AwaitCell,
        &create::Create,
        &migrate::Migrate,
        &seed::Seed,
        &register::Register,
        &notify::Notify,
    ],
};

/// What a tenant is made from. Holds the hash of its admin's password, never the password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) tenant: TenantId,
    pub(crate) slug: Slug,
    pub(crate) name: String,
    pub(crate) plan: PlanName,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) settings: Settings,
    pub(crate) features: Overrides,
    pub(crate) limits: LimitOverrides,
    pub(crate) admin_email: String,
    pub(crate) admin_hash: String,
    pub(crate) cell: Option<CellName>,
    pub(crate) region: Option<String>,
    pub(crate) labels: Vec<String>,
    /// Of the request, to tell a repeat from another.
    pub(crate) fingerprint: String,
}

impl Input {
    /// `create` is checked and filled in already.
    pub(crate) fn new(create: CreateTenant, tenant: TenantId, admin_hash: String, fingerprint: String) -> Self {
        let CreateTenant { slug, name, plan, isolation, settings, features, limits, admin_email, cell, region, labels, .. } =
            create;
        Self {
            name: name.unwrap_or_else(|| slug.to_string()),
            admin_email: admin_email.unwrap_or_else(|| format!("admin@{slug}.localhost")),
            tenant,
            slug,
            plan,
            isolation,
            settings,
            features,
            limits,
            admin_hash,
            cell,
            region,
            labels,
            fingerprint,
        }
    }
}

/// What steps leave for later ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Memo {
    pub(crate) no: TenantNo,
    pub(crate) isolation: Isolation,
    pub(crate) asked_at: DateTime<Utc>,
    /// From here on: known once it is placed.
    pub(crate) home: Option<Home>,
    /// A run before this one has committed the tenant's tables and seed; or this one has.
    #[serde(default)]
    pub(crate) made: bool,
    /// Of the tenant's database, when it was made.
    #[serde(default)]
    pub(crate) fence: i64,
    /// Last migration that it was made with.
    #[serde(default)]
    pub(crate) schema_version: i64,
    /// How long the tables took.
    #[serde(default)]
    pub(crate) migrate_ms: u64,
}

/// Where a tenant is to live.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Home {
    pub(crate) cell: CellName,
    pub(crate) database: String,
    pub(crate) schema: String,
    /// The pre-made database that becomes its own.
    pub(crate) warm: Option<String>,
}

impl Memo {
    pub(crate) fn home(&self) -> Result<&Home, Error> {
        self.home.as_ref().ok_or_else(|| Error::Corrupt("a tenant has no place after it was placed".into()))
    }

    /// The tenant's own login, unless it shares one.
    pub(crate) fn role(&self) -> Result<Option<String>, Error> {
        let home = self.home()?;
        Ok(match self.isolation {
            Isolation::Row => None,
            Isolation::Schema => Some(role_of(&home.schema)),
            Isolation::Database | Isolation::Cell => Some(role_of(&home.database)),
        })
    }

    /// Whether the tenant's database is its own.
    pub(crate) const fn alone(&self) -> bool {
        matches!(self.isolation, Isolation::Database | Isolation::Cell)
    }
}

/// The cell of a tenant, as the catalog has it now.
async fn cell_of(work: &Work, home: &Home) -> Result<Cell, Error> {
    let found = store::cells::get(&mut *work.control.catalog_pool().acquire().await?, &home.cell).await?;
    found.ok_or_else(|| Error::Corrupt(format!("cell {} has gone from the catalog", home.cell)))
}

fn number(no: i64) -> Result<TenantNo, Error> {
    parse("tenant number", TenantNo::new(no).ok_or("not positive"))
}
