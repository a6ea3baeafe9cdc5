//! Features: named, typed values that a plan sets and a tenant may override.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One feature's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum FeatureValue {
    /// A switch.
    Switch(bool),
    /// A number (a count, a size).
    Number(i64),
    /// A word.
    Word(String),
}

/// Features by name.
pub type Features = BTreeMap<String, FeatureValue>;

impl FeatureValue {
    /// Whether the feature grants anything: `false`, 0 and "" do not.
    #[must_use]
    pub fn is_on(&self) -> bool {
        match self {
            Self::Switch(on) => *on,
            Self::Number(n) => *n > 0,
            Self::Word(w) => !w.is_empty(),
        }
    }
}
