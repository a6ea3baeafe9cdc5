//! The application's bundle: its tenant migrations and its seed, handed to the control plane so that it can provision alone.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// Migrations and seed of an application (`acmedocs bundle` prints one).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// In order of version; one that was handed in before must be unchanged.
    pub migrations: Vec<Migration>,
    /// Run once in each new tenant: `$1` admin email, `$2` Argon2 PHC hash, `$3` tenant name, `$4` settings (jsonb).
    #[serde(default)]
    pub seed: String,
}

/// One migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// From 1 up.
    #[schema(minimum = 1)]
    pub version: i64,
    /// What it is for.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// SQL without schema names; each `CREATE TABLE x` is followed by `SELECT insula.tenant_table('x')`.
    pub sql: String,
}

/// A bundle that was handed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BundlePut {
    /// Its last migration.
    pub schema_version: i64,
    /// The work of applying it; null when everything has it already.
    pub operation: Option<Operation>,
}

/// A migration that the control plane has, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MigrationStatus {
    /// From 1 up.
    pub version: i64,
    /// What it is for.
    pub name: String,
    /// SHA-256 of its SQL, hexadecimal.
    pub checksum: String,
    /// Databases and schemas that have it.
    pub applied: i64,
    /// When it was handed in.
    pub created_at: DateTime<Utc>,
}
