//! Host names of a tenant, besides `SLUG.<base domain>`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A host name that leads to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Domain {
    /// Lower case, without a port.
    #[schema(example = "docs.acme.example")]
    pub host: String,
    /// When its ownership was proven; null until then.
    pub verified_at: Option<DateTime<Utc>>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// Adds a host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDomain {
    /// A full host name: labels of a-z, 0-9 and hyphens with dots between them, 253 characters at most.
    #[schema(max_length = 253)]
    pub host: String,
}
