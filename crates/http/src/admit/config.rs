//! What a process admits: bounds that belong to the process and its cells. What a tenant may do stands in its plan.

use insula_planner::{breaker, gradient};
use serde::{Deserialize, Serialize};

use super::class::ClassConfig;

/// Admission, as configured. The defaults suit a gateway before cells of a few cores each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionConfig {
    /// Whether tenants are held to their rates here. Not where a gateway has done so already: a request would be charged twice.
    pub rates: bool,
    /// Classes of routes with limits of their own, seven at most.
    pub classes: Vec<ClassConfig>,
    /// Requests that may wait for a full cell.
    pub queue: usize,
    /// Requests of one tenant that may wait for a full cell.
    pub queue_per_tenant: usize,
    /// Longest wait for a full cell, milliseconds. Who would wait longer is refused at once.
    pub max_wait_ms: u32,
    /// How much a cell takes at once.
    pub limit: LimitConfig,
    /// When a cell is not asked any more.
    pub breaker: BreakerConfig,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            rates: true,
            classes: Vec::new(),
            queue: 1_024,
            queue_per_tenant: 128,
            max_wait_ms: 1_000,
            limit: LimitConfig::default(),
            breaker: BreakerConfig::default(),
        }
    }
}

/// Bounds of the limit that a cell's own times teach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitConfig {
    /// Requests at work in a cell to begin with.
    pub initial: u32,
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// How many times its usual time a request may take before the limit shrinks.
    pub tolerance: f64,
}

impl Default for LimitConfig {
    fn default() -> Self {
        let gradient::Policy { initial, min, max, tolerance, .. } = gradient::Policy::default();
        Self { initial, min, max, tolerance }
    }
}

impl LimitConfig {
    pub(crate) fn policy(&self) -> gradient::Policy {
        let Self { initial, min, max, tolerance } = *self;
        gradient::Policy { initial, min: min.max(1), max, tolerance: tolerance.max(1.0), ..gradient::Policy::default() }
    }
}

/// When a circuit opens, and how it comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// So many failures in a row open it.
    pub in_a_row: u32,
    /// So does this share of failures in ten seconds, percent, when there were twenty requests.
    pub percent: u32,
    /// First pause before a probe, milliseconds; it doubles with each failed probe.
    pub pause_ms: u32,
    /// Longest pause, milliseconds.
    pub longest_pause_ms: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { in_a_row: 5, percent: 50, pause_ms: 250, longest_pause_ms: 15_000 }
    }
}

impl BreakerConfig {
    pub(crate) fn policy(&self) -> breaker::Policy {
        let ms = |ms: u32| u64::from(ms) * 1_000_000;
        breaker::Policy {
            in_a_row: self.in_a_row,
            percent: self.percent,
            pause: ms(self.pause_ms),
            longest_pause: ms(self.longest_pause_ms),
            ..breaker::Policy::default()
        }
    }
}
