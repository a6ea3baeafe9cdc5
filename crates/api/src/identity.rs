//! Who may speak for a tenant: identity providers, API keys; and the keys that sign tenant contexts.

use chrono::{DateTime, Utc};
use insula_core::{KeyId, ProviderId, TenantId};
use serde::{Deserialize, Serialize};

/// An identity provider (OpenID Connect) whose tokens are believed at the edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Provider {
    /// Its id.
    pub id: ProviderId,
    /// The tenant that it speaks for; null for one of the host side, whose tokens name the tenants themselves.
    pub tenant: Option<TenantId>,
    /// `iss` of its tokens, letter by letter.
    #[schema(example = "https://id.acme.example")]
    pub issuer: String,
    /// What `aud` of its tokens must hold.
    pub audience: String,
    /// Where its keys are; null when its discovery document says.
    pub jwks_url: Option<String>,
    /// The claim that names the user.
    pub subject_claim: String,
    /// The claim that names what the user may do: a text with spaces between, or a list.
    pub scopes_claim: String,
    /// The claim that must hold `tenant_value`; for the host side's own: the claim that names the tenants, by slug or id.
    pub tenant_claim: Option<String>,
    /// What `tenant_claim` must hold.
    pub tenant_value: Option<String>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// Adds an identity provider. Claims are named, or pointed at (`/realm_access/roles`, RFC 6901).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProvider {
    /// The tenant that it speaks for, by id or slug; left out for one of the host side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// `iss` of its tokens, letter by letter: an https URL (or http on this machine).
    #[schema(max_length = 500)]
    pub issuer: String,
    /// What `aud` of its tokens must hold.
    #[schema(min_length = 1, max_length = 500)]
    pub audience: String,
    /// Where its keys are; left out: its discovery document says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// The claim that names the user; `sub` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_claim: Option<String>,
    /// The claim that names what the user may do; `scope` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes_claim: Option<String>,
    /// The claim that must hold `tenant_value`; required for the host side's own, where it names the tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_claim: Option<String>,
    /// What `tenant_claim` must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_value: Option<String>,
}

/// Which providers to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProviderQuery {
    /// Of this tenant only: id or slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Most items of the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A key of a tenant's own programs, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TenantKey {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is for.
    pub name: String,
    /// What it may do, in the application's words.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends; null for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Makes a key for a tenant's own programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenantKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// What it may do, in the application's words: up to 64 words without spaces.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// When it is to end; never when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// A new key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TenantKeyCreated {
    /// The key.
    #[serde(flatten)]
    pub key: TenantKey,
    /// What goes into `Authorization: Bearer ...`: in the first answer only, and kept nowhere. Null when withheld.
    pub secret: Option<String>,
    /// True in every repeated answer: the secret was told once and cannot be told again.
    #[serde(default)]
    pub secret_withheld: bool,
}

/// A key that gateways sign tenant contexts with. Its secret half is derived from the root key by its number, and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ContextKey {
    /// Its number.
    pub no: i32,
    /// Its id in tokens and in the JWKS.
    pub kid: String,
    /// When it was made, and published.
    pub created_at: DateTime<Utc>,
    /// From when gateways sign with it.
    pub signs_from: DateTime<Utc>,
    /// When it leaves the JWKS; null for the newest.
    pub ends_at: Option<DateTime<Utc>>,
}

/// Rotates the key that signs tenant contexts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateContextKey {
    /// How long the new key is published before it signs, seconds: 600 suits applications that look at the JWKS every few minutes.
    #[schema(minimum = 0, maximum = 604800)]
    pub overlap_seconds: u32,
}
