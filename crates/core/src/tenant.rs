//! A tenant's life, seen from outside.

use serde::{Deserialize, Serialize};

/// The state of a tenant. Work is done for `Active` tenants only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// Being made; not yet reachable.
    Provisioning,
    /// At work.
    Active,
    /// Paused by the host side; nothing is lost, nothing is served.
    Suspended,
    /// Disabled for good; its data waits for erasure.
    Deleted,
}

impl TenantState {
    /// As the catalog writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
        }
    }

    /// Reads what [`TenantState::as_str`] wrote.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        [Self::Provisioning, Self::Active, Self::Suspended, Self::Deleted].into_iter().find(|s| s.as_str() == text)
    }
}
