//! `tenant.provision`: validate, place, create, migrate, seed, register, notify.

use insula_core::feature::Features;
use insula_core::{CellName, Isolation, PlanName, Slug, TenantId};
use serde::{Deserialize, Serialize};

use crate::model::{CreateTenant, LimitOverrides, Settings};
use crate::operation::step::Saga;

pub(crate) static SAGA: Saga = Saga { kind: "tenant.provision", steps: &[] };

/// What a tenant is made from. Holds the hash of its admin's password, never the password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) tenant: TenantId,
    pub(crate) slug: Slug,
    pub(crate) name: String,
    pub(crate) plan: PlanName,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) settings: Settings,
    pub(crate) features: Features,
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
