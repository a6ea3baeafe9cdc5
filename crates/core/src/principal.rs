//! Who acts, as proven by whoever authenticated the request.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::TenantId;

/// How a principal proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A token of the tenant's own identity provider (OIDC).
    Oidc,
    /// An API key of the tenant.
    ApiKey,
    /// A session of the application's own: it says who, the application checks it.
    Session,
}

/// Somebody who acts. Always: made only by code that has verified the proof, and never good for a tenant outside `tenants`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name under which its tenant knows it, unique within the issuer.
    pub subject: Arc<str>,
    /// The issuer of its token: two issuers of one tenant may know two people under one name. `None` for keys and sessions.
    pub issuer: Option<Arc<str>>,
    /// How it was proven.
    pub via: Via,
    /// The tenants that it belongs to. One user may belong to several, and chooses.
    pub tenants: Arc<[TenantId]>,
    /// What it may do, in the words of the application.
    pub scopes: Arc<[Arc<str>]>,
}

impl Principal {
    /// Whether it belongs to a tenant.
    #[must_use]
    pub fn belongs_to(&self, tenant: TenantId) -> bool {
        self.tenants.contains(&tenant)
    }
}
