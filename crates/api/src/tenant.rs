//! Tenants: make, read, change, suspend, resume, delete.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use insula_core::feature::Overrides;
use insula_core::{CellName, Isolation, MoveState, OperationId, Override, PlanName, Slug, TenantId, TenantState};
use serde::{Deserialize, Deserializer, Serialize};

/// A tenant as the host side sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Tenant {
    /// Public identity; never reused.
    pub id: TenantId,
    /// DNS label: the tenant is served at `SLUG.<base domain>`.
    pub slug: Slug,
    /// What people call it.
    pub name: String,
    /// What it bought.
    pub plan: PlanName,
    /// Where its life stands.
    pub state: TenantState,
    /// How its rows are kept apart; null until it is placed.
    pub isolation: Option<Isolation>,
    /// Where it lives; null until it is placed.
    pub placement: Option<Placement>,
    /// Branding, locale, time zone.
    pub settings: Settings,
    /// Overrides of the plan's features: a value, or `{"value": …, "until": …}` for one that ends.
    #[schema(value_type = BTreeMap<String, Override>)]
    pub features: Overrides,
    /// Overrides of the plan's limits, by the limit's name.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub limits: LimitOverrides,
    /// The last application migration that its tables have.
    pub schema_version: i64,
    /// Grows with every change; the `ETag` is `"<version>"`.
    pub version: i64,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was disabled for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
}

/// Limits by name, as in [`insula_core::Limits`].
pub type LimitOverrides = BTreeMap<String, u64>;

/// Where a tenant lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Placement {
    /// The cell.
    pub cell: CellName,
    /// The database in the cell's server.
    pub database: String,
    /// The schema that holds the application's tables.
    pub schema: String,
    /// Grows with every change of place.
    pub epoch: i64,
    /// Where a move stands.
    pub state: MoveState,
}

/// A tenant's own looks and customs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What its pages are headed with; its name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub brand_name: Option<String>,
    /// Its colour: `#` and six hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "#2f6f4f", pattern = "^#[0-9a-fA-F]{6}$")]
    pub color: Option<String>,
    /// BCP 47 tag; `en` unless given.
    #[serde(default = "default_locale")]
    #[schema(example = "en-GB", max_length = 35)]
    pub locale: String,
    /// IANA name; `UTC` unless given.
    #[serde(default = "default_time_zone")]
    #[schema(example = "Europe/Zurich", max_length = 64)]
    pub time_zone: String,
}

fn default_locale() -> String {
    "en".to_owned()
}

fn default_time_zone() -> String {
    "UTC".to_owned()
}

impl Default for Settings {
    fn default() -> Self {
        Self { brand_name: None, color: None, locale: default_locale(), time_zone: default_time_zone() }
    }
}

/// Asks for a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// DNS label, 2 to 63 of a-z, 0-9 and single hyphens between them; some are reserved.
    pub slug: Slug,
    /// A plan's name.
    pub plan: PlanName,
    /// What people call it; the slug unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// How its rows are kept apart; as the plan says unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// A cell to place it in; the best one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellName>,
    /// Only cells of this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Only cells that have all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Login of its first user; `admin@SLUG.localhost` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 254)]
    pub admin_email: Option<String>,
    /// Branding, locale, time zone.
    #[serde(default)]
    pub settings: Settings,
    /// Overrides of the plan's features: a value, or `{"value": …, "until": …}` for one that ends.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Override>)]
    pub features: Overrides,
    /// Overrides of the plan's limits, by the limit's name.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, u64>)]
    pub limits: LimitOverrides,
}

/// A tenant that was asked for. With `wait` it is made; otherwise the operation tells how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TenantCreated {
    /// The tenant.
    #[serde(flatten)]
    pub tenant: Tenant,
    /// Login of its first user.
    pub admin: AdminLogin,
    /// The operation that makes it.
    pub operation: OperationId,
}

/// A first user's login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AdminLogin {
    /// The login.
    pub email: String,
    /// The password: in the first answer only, and kept nowhere. Null when withheld.
    pub password: Option<String>,
    /// True in every repeated answer: the password was told once and cannot be told again.
    #[serde(default)]
    pub password_withheld: bool,
}

/// What becomes of one override.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum OverrideChange {
    /// It is this from now on.
    Set(Override),
    /// Null: it is taken away.
    Reset,
}

/// Changes a tenant. What is absent stays; maps are merged by key, and a null value takes an override away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTenant {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// Another plan: its limits and features hold at once; the place does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanName>,
    /// Settings, by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsPatch>,
    /// Overrides of features: a value sets, `{"value": …, "until": …}` sets for a time, null takes away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, OverrideChange>,
    /// Overrides of limits: a value sets, null takes away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Option<u64>>,
}

/// Changes settings: absent stays, null resets, a value sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    /// See [`Settings::brand_name`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub brand_name: Option<Option<String>>,
    /// See [`Settings::color`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub color: Option<Option<String>>,
    /// See [`Settings::locale`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub locale: Option<Option<String>>,
    /// See [`Settings::time_zone`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub time_zone: Option<Option<String>>,
}

/// A field that is there, even as null, is `Some`.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Which tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TenantQuery {
    /// In this state; all but deleted ones unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TenantState>,
    /// Of this plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub plan: Option<PlanName>,
    /// In this cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub cell: Option<CellName>,
    /// Slug or name holds this, whatever the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Most items to answer with: 1 to 500, 50 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Whether to wait for the operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Answer when the operation has ended (at most 60 seconds later; then as without it).
    #[serde(default)]
    pub wait: bool,
}

/// Asks for a grant for one backend of the tenant's database: host side, audited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGrant {
    /// Process id of the backend (`SELECT pg_backend_pid()`).
    #[schema(minimum = 1)]
    pub pid: i32,
}

/// A grant. Its text opens the tenant's data on that one connection until it expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GrantText {
    /// What `SELECT insula.enter('...')` takes: in the first answer only. Null in every repeated one.
    pub grant: Option<String>,
    /// When it opens nothing any more.
    pub expires_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use insula_core::FeatureValue;

    use super::*;

    #[test]
    fn a_patch_tells_null_from_absent() {
        let patch: UpdateTenant = serde_json::from_str(
            r#"{"settings":{"color":null,"locale":"de"},"limits":{"max_users":null},"features":{"search":null,"x":2}}"#,
        )
        .expect("parses");
        let settings = patch.settings.clone().expect("given");
        assert_eq!((settings.color, settings.locale, settings.time_zone), (Some(None), Some(Some("de".into())), None));
        assert_eq!(patch.limits.get("max_users"), Some(&None));
        assert_eq!(patch.features.get("search"), Some(&OverrideChange::Reset));
        assert_eq!(patch.features.get("x"), Some(&OverrideChange::Set(FeatureValue::Number(2).into())));
        assert!(serde_json::from_str::<UpdateTenant>(r#"{"slug":"other"}"#).is_err());
    }
}
