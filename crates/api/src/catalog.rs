//! The catalog for data planes: its change feed, and one tenant's configuration.
//!
//! The rows themselves are `insula-catalog`'s (`insula_catalog::wire` says how they travel); here they are values.

use std::collections::BTreeMap;

use insula_core::feature::Features;
use insula_core::{CellName, FeatureValue, Isolation, Limits, MoveState, PlanName, Slug, TenantId, TenantState, Tier};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::tenant::Settings;

/// From where to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeedQuery {
    /// The revision that the reader has; everything when absent.
    #[serde(default)]
    #[param(minimum = 0)]
    pub since: Option<i64>,
    /// The catalog that the revision is of: the header `Insula-Catalog` of an earlier answer.
    #[serde(default)]
    pub catalog: Option<Uuid>,
}

/// All that changed between two revisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CatalogChanges {
    /// From where it leads.
    pub since: i64,
    /// Where a reader stands after it.
    pub revision: i64,
    /// Each thing once, as it is at `revision`: `{"tenant": [id, row or null]}`, and likewise `plan`, `cell`, `database`, `document`.
    pub changes: Vec<serde_json::Value>,
}

/// What holds for a tenant: its plan with its own limits and features merged in, and what is rolled out to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TenantConfig {
    /// Which tenant.
    pub id: TenantId,
    /// DNS label.
    pub slug: Slug,
    /// What people call it.
    pub name: String,
    /// Where its life stands.
    pub state: TenantState,
    /// What it bought.
    pub plan: PlanName,
    /// Its scheduling class.
    pub tier: Tier,
    /// The limits in force.
    pub limits: Limits,
    /// The features in force.
    #[schema(value_type = BTreeMap<String, FeatureValue>)]
    pub features: Features,
    /// Branding, locale, time zone.
    pub settings: Settings,
    /// Where it lives; null until it is placed.
    pub placement: Option<ConfigPlacement>,
    /// The last application migration that its tables have.
    pub schema_version: i64,
    /// The configuration documents in force for it, by name.
    pub documents: BTreeMap<String, ConfigDocument>,
    /// Grows with every change of the tenant itself (not of its plan or of documents: the `ETag` covers those too).
    pub version: i64,
}

/// Where a tenant lives, as far as who routes to it needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConfigPlacement {
    /// The cell.
    pub cell: CellName,
    /// How its rows are kept apart.
    pub isolation: Isolation,
    /// Grows with every change of place.
    pub epoch: i64,
    /// Where a move stands.
    pub state: MoveState,
}

/// A configuration document as it holds for one tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConfigDocument {
    /// Which version.
    pub version: i64,
    /// What it says.
    #[schema(value_type = Object)]
    pub value: serde_json::Value,
}
