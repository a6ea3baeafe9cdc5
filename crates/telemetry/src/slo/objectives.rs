//! What is promised, as a file says it (TOML):
//!
//! ```toml
//! [default]                 # tiers that are not named
//! availability = 99.9       # percent of requests that must not fail (5xx, or cut off)
//! latency = 99.0            # percent of the others that must be answered within
//! slow_ms = 1000            # this time
//!
//! [tiers.gold]
//! availability = 99.95
//! slow_ms = 250
//!
//! [tenants.acme]            # a tenant with a promise of its own
//! slow_ms = 100
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::error::Error;

/// Tenants that may be named.
pub const MOST_TENANTS: usize = 200;

/// One promise.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    /// Percent of requests that must not fail: from 0 up to, but not, 100.
    pub availability: f64,
    /// Percent of requests that must not be slow, likewise.
    pub latency: f64,
    /// The time to the head of an answer above which it is slow, milliseconds.
    pub slow_ms: u64,
}

impl Default for Objective {
    fn default() -> Self {
        Self { availability: 99.9, latency: 99.0, slow_ms: 1000 }
    }
}

impl Objective {
    /// See [`Objective::slow_ms`].
    #[must_use]
    pub const fn slow(&self) -> Duration {
        Duration::from_millis(self.slow_ms)
    }
}

/// All promises.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objectives {
    /// Of tiers that are not named.
    pub default: Objective,
    /// By tier.
    pub tiers: BTreeMap<String, Objective>,
    /// By slug.
    pub tenants: BTreeMap<String, Objective>,
}

impl Objectives {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Objectives`], with the line.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(file).map_err(|e| Error::Objectives(format!("{} cannot be read: {e}", file.display())))?;
        Self::parse(&text)
    }

    /// Reads its text.
    ///
    /// # Errors
    /// As [`Objectives::read`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let all: Self = toml::from_str(text).map_err(|e| Error::Objectives(e.to_string()))?;
        let named = all.tiers.iter().chain(&all.tenants).map(|(name, objective)| (name.as_str(), objective));
        for (name, objective) in named.chain([("default", &all.default)]) {
            if ![objective.availability, objective.latency].iter().all(|percent| (0.0..100.0).contains(percent)) {
                return Err(Error::Objectives(format!(
                    "{name}: a percentage is from 0 up to, but not, 100: nothing is always good"
                )));
            }
        }
        if all.tenants.len() > MOST_TENANTS {
            return Err(Error::Objectives(format!("at most {MOST_TENANTS} tenants may be named; give the others a tier")));
        }
        Ok(all)
    }

    /// Of a tier.
    #[must_use]
    pub fn tier(&self, tier: &str) -> Objective {
        self.tiers.get(tier).copied().unwrap_or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_where_and_what() {
        let fault = |text: &str| Objectives::parse(text).unwrap_err().to_string();
        assert!(
            fault("[tiers.gold]\navailabilty = 99.9\n").contains("availabilty"),
            "{}",
            fault("[tiers.gold]\navailabilty = 99.9\n")
        );
        assert!(fault("[tenants.acme]\nlatency = 100.0\n").contains("acme: a percentage is from 0"));
        assert_eq!(Objectives::parse("").unwrap().tier("any"), Objective::default());
    }
}
