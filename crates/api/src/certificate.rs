//! Certificates for tenants' own host names, as gateways show them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Puts a certificate with its private key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutCertificate {
    /// PEM: the host's own certificate first, then those that lead to its authority.
    #[schema(max_length = 65536)]
    pub chain: String,
    /// The private key, PEM. It is kept sealed, and no answer has it.
    #[schema(max_length = 16384)]
    pub key: String,
}

impl fmt::Debug for PutCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutCertificate").field("chain", &self.chain).field("key", &"***").finish()
    }
}

/// A certificate, without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Certificate {
    /// The host name; `*.` before it for all that are one label below.
    #[schema(example = "docs.acme.example")]
    pub name: String,
    /// SHA-256 of the host's own certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    /// When it was put.
    pub updated_at: DateTime<Utc>,
    /// Until when the host's own certificate is good; null when it does not say so in a way that we can read.
    #[serde(default)]
    pub not_after: Option<DateTime<Utc>>,
}

/// A certificate as gateways get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SealedCertificate {
    /// The host name.
    pub name: String,
    /// PEM.
    pub chain: String,
    /// The private key, sealed for whoever has the certificates' key; base64.
    pub sealed_key: String,
}

/// All certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SealedCertificates {
    /// By name.
    pub items: Vec<SealedCertificate>,
}
