//! Keys to this API.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What every key's text begins with.
pub const PREFIX: &str = "ik_";

/// What a key may do; each may all that the ones below it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Follow the catalog and hand in usage, as data planes do.
    Edge,
    /// Read all but secrets and the audit log's keys.
    Read,
    /// Create, suspend and resume tenants besides.
    Provisioner,
    /// Everything.
    Admin,
}

impl Scope {
    /// All, from the least.
    pub const ALL: [Self; 4] = [Self::Edge, Self::Read, Self::Provisioner, Self::Admin];

    /// As the catalog writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Read => "read",
            Self::Provisioner => "provisioner",
            Self::Admin => "admin",
        }
    }

    /// Reads what [`Scope::as_str`] wrote.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Key {
    /// Its id.
    pub id: Uuid,
    /// Whose it is: the actor in the audit log.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Makes a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Whose it is: the actor in the audit log.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// What it may do.
    pub scope: Scope,
}

/// A new key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyCreated {
    /// The key.
    #[serde(flatten)]
    pub key: Key,
    /// What goes into `Authorization: Bearer ...`: in the first answer only, and kept nowhere. Null when withheld.
    pub secret: Option<String>,
    /// True in every repeated answer: the secret was told once and cannot be told again.
    #[serde(default)]
    pub secret_withheld: bool,
}
