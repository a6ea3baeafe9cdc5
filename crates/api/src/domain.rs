//! Host names of a tenant, besides `SLUG.<base domain>`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A host name that leads to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Domain {
    /// Lower case, without a port.
    #[schema(example = "docs.acme.example")]
    pub host: String,
    /// The record that proves whose it is; it has to stay until the proof.
    pub proof: TxtRecord,
    /// When its ownership was proven; null until then, and it leads nowhere.
    pub verified_at: Option<DateTime<Utc>>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// A TXT record in the domain name system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TxtRecord {
    /// Its name.
    #[schema(example = "_insula-challenge.docs.acme.example")]
    pub name: String,
    /// What it has to say; other records of the name do not matter.
    #[schema(example = "insula-verification=5f2b6c1d8e3a4790b1c2d3e4f5a6b7c8")]
    pub value: String,
}

/// Adds a host name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDomain {
    /// A full host name, without scheme or port, 253 characters at most; an international one is kept as punycode.
    #[schema(max_length = 253)]
    pub host: String,
}
