//! What a lane of the queue is to know of its tenant's plan and of its kind.

use insula_catalog::Route;
use insula_core::{FeatureValue, SystemClock};
use serde_json::json;

use crate::registry::Entry;

/// A feature of plans: most jobs that one tenant may have running.
const JOBS_FEATURE: &str = "max_concurrent_jobs";

/// Weight, caps and rate of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    weight: u32,
    cap: Option<u32>,
    tenant_cap: Option<u32>,
    /// Microseconds between starts.
    pace: Option<u64>,
    burst: u32,
}

impl Settings {
    /// Of a lane that is named after a kind, or after none. Not after the kind of the job that was found in it: a job may lie anywhere.
    pub(crate) fn of(route: &Route, kind: Option<&Entry>) -> Self {
        let number = |name: &str| match route.plan.feature(name, &SystemClock) {
            Some(FeatureValue::Number(n)) => u32::try_from(*n).ok(),
            _ => None,
        };
        let rules = kind.map(|entry| entry.rules);
        let rate = rules.and_then(|rules| rules.rate).filter(|rate| *rate > 0.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let pace = rate.map(|rate| (1_000_000.0 / rate).clamp(1.0, 1e12) as u64);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let burst = rate.map_or(1, |rate| rate.clamp(1.0, 1e6) as u32);
        let cap = rules.and_then(|rules| rules.cap_feature.and_then(number).or(rules.cap));
        Self { weight: route.plan.tier.weight.max(1), cap, tenant_cap: number(JOBS_FEATURE), pace, burst }
    }

    /// What a lane that was told these remembers. 0 is what every lane begins with, and means: weight 1 and no bounds.
    pub(crate) fn mark(&self) -> i64 {
        if *self == (Self { weight: 1, cap: None, tenant_cap: None, pace: None, burst: 1 }) {
            return 0;
        }
        // FNV-1a: the same in every process and version.
        let part = |n: Option<u64>| n.map_or(u64::MAX, |n| n);
        let parts = [
            u64::from(self.weight),
            part(self.cap.map(u64::from)),
            part(self.tenant_cap.map(u64::from)),
            part(self.pace),
            u64::from(self.burst),
        ];
        let hash = parts
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        i64::from_le_bytes((hash | 1).to_le_bytes())
    }

    /// Whether a lane that was not told must not be taken from: more than it may would run.
    pub(crate) const fn is_bounded(&self) -> bool {
        self.cap.is_some() || self.tenant_cap.is_some() || self.pace.is_some()
    }

    pub(crate) fn json(&self, tenant: i64, lane: &str) -> serde_json::Value {
        json!({
            "t": tenant, "l": lane, "w": self.weight, "c": self.cap, "tc": self.tenant_cap, "p": self.pace, "b": self.burst, "m": self.mark(),
        })
    }
}
