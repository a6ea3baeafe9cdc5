//! Identity providers and API keys as Postgres hands them over.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::identity::{ApiKey, Provider};

#[derive(FromRow)]
pub(super) struct ProviderRecord {
    id: Uuid,
    tenant: Option<Uuid>,
    issuer: String,
    audience: String,
    jwks_url: Option<String>,
    subject_claim: String,
    scopes_claim: String,
    tenant_claim: Option<String>,
    tenant_value: Option<String>,
}

macro_rules! providers {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, issuer, audience, jwks_url, subject_claim, scopes_claim, tenant_claim, tenant_value \
             FROM catalog.identity_provider",
            $rest
        )
    };
}

impl ProviderRecord {
    pub(super) const ALL: &'static str = providers!("");
    pub(super) const SOME: &'static str = providers!(" WHERE id = ANY ($1)");

    pub(super) fn read(self) -> Provider {
        Provider {
            id: self.id.into(),
            tenant: self.tenant.map(Into::into),
            issuer: self.issuer.into(),
            audience: self.audience.into(),
            jwks_url: self.jwks_url.map(Into::into),
            subject_claim: self.subject_claim.into(),
            scopes_claim: self.scopes_claim.into(),
            tenant_claim: self.tenant_claim.map(Into::into),
            tenant_value: self.tenant_value.map(Into::into),
        }
    }
}

#[derive(FromRow)]
pub(super) struct KeyRecord {
    pub(super) id: Uuid,
    tenant: Uuid,
    hash: Vec<u8>,
    scopes: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
}

macro_rules! keys {
    ($rest:literal) => {
        concat!("SELECT id, tenant, hash, scopes, expires_at FROM catalog.tenant_key WHERE revoked_at IS NULL ", $rest)
    };
}

impl KeyRecord {
    // tenant_key_pkey
    pub(super) const PAGE: &'static str = keys!("AND id > $1 ORDER BY id LIMIT $2");
    pub(super) const SOME: &'static str = keys!("AND id = ANY ($1)");

    /// A hash of another length, which the table refuses, would be the hash of nothing.
    pub(super) fn read(self) -> Option<ApiKey> {
        Some(ApiKey {
            id: self.id.into(),
            tenant: self.tenant.into(),
            hash: self.hash.try_into().ok()?,
            scopes: self.scopes.into_iter().map(Arc::from).collect(),
            expires: self.expires_at.map(|at| at.timestamp()),
        })
    }
}
