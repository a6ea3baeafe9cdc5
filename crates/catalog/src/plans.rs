//! Plans as tenants have them: one value for all tenants of a plan, and one for each distinct set of overrides.

use std::collections::HashMap;
use std::sync::Arc;

use insula_core::feature::Overrides;
use insula_core::{Plan, PlanName};

type LimitOverrides = serde_json::Map<String, serde_json::Value>;

/// By the address of a value: its plan's name, and its overrides as JSON.
pub(crate) type Variants = HashMap<usize, (PlanName, String)>;

/// The plans, and their variants by overrides.
#[derive(Default)]
pub(crate) struct Plans {
    base: HashMap<PlanName, Arc<Plan>>,
    variants: HashMap<Variant, Arc<Plan>>,
    sweep_at: usize,
}

/// A plan and what a tenant replaces in it, as JSON (of sorted maps, so that equal overrides have equal texts).
#[derive(Clone, PartialEq, Eq, Hash)]
struct Variant {
    plan: PlanName,
    overrides: String,
}

impl Plans {
    /// The plan that a tenant has; `None` when there is no such plan.
    pub(crate) fn effective(&mut self, plan: &PlanName, features: &Overrides, limits: &LimitOverrides) -> Option<Arc<Plan>> {
        let base = self.base.get(plan)?;
        if features.is_empty() && limits.is_empty() {
            return Some(Arc::clone(base));
        }
        let overrides = serde_json::to_string(&(features, limits)).ok()?;
        let variant = Variant { plan: plan.clone(), overrides };
        if let Some(known) = self.variants.get(&variant) {
            return Some(Arc::clone(known));
        }
        let merged = Arc::new(merge(base, features, limits));
        self.sweep();
        self.variants.insert(variant, Arc::clone(&merged));
        Some(merged)
    }

    /// Takes in a plan as it is now; answers what each value made from it becomes, old and new.
    pub(crate) fn put(&mut self, plan: Plan) -> Vec<(Arc<Plan>, Arc<Plan>)> {
        // An equal plan stays the very value that tenants have, or the next change would not find them.
        if self.base.get(&plan.name).is_some_and(|old| **old == plan) {
            return Vec::new();
        }
        let name = plan.name.clone();
        let new = Arc::new(plan);
        let mut became = Vec::new();
        became.extend(self.base.insert(name.clone(), Arc::clone(&new)).map(|old| (old, Arc::clone(&new))));
        for (variant, value) in self.variants.iter_mut().filter(|(variant, _)| variant.plan == name) {
            // It was written by `effective`, so it reads.
            let (features, limits) = serde_json::from_str(&variant.overrides).unwrap_or_default();
            let old = std::mem::replace(value, Arc::new(merge(&new, &features, &limits)));
            became.push((old, Arc::clone(value)));
        }
        became
    }

    /// The plans, and by the address of each value that tenants have its plan's name and its overrides as JSON.
    pub(crate) fn freeze(&self) -> (Vec<Arc<Plan>>, Variants) {
        let variants = self.variants.iter();
        let variants = variants.map(|(v, plan)| (Arc::as_ptr(plan) as usize, (v.plan.clone(), v.overrides.clone())));
        (self.base.values().cloned().collect(), variants.collect())
    }

    /// Forgets plans. Tenants that have one (there should be none) keep it.
    pub(crate) fn retain(&mut self, keep: impl Fn(&PlanName) -> bool) {
        self.base.retain(|name, _| keep(name));
    }

    /// Forgets variants that no tenant has any more, whenever their number has doubled.
    fn sweep(&mut self) {
        if self.variants.len() >= self.sweep_at.max(64) {
            self.variants.retain(|_, plan| Arc::strong_count(plan) > 1);
            self.sweep_at = self.variants.len() * 2;
        }
    }
}

fn merge(base: &Plan, features: &Overrides, limits: &LimitOverrides) -> Plan {
    let mut plan = base.overridden(features);
    match base.limits.overridden(limits) {
        Ok(merged) => plan.limits = merged,
        // The control plane checks overrides before it writes them; should one slip through, the plan's own limits hold.
        Err(error) => tracing::error!(plan = %base.name, %error, "limits of a tenant cannot be read: the plan's hold"),
    }
    plan
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use insula_core::feature::Temporary;
    use insula_core::{FeatureValue, Isolation, Limits, Override, Tier};

    use super::*;

    fn plan(users: u32) -> Plan {
        Plan {
            name: "gold".parse().unwrap(),
            tier: Tier { name: "gold".into(), weight: 1, pool_guarantee: 0, pool_cap: 100 },
            isolation: Isolation::Row,
            limits: Limits { max_users: users, max_connections: users, ..Limits::default() },
            features: [("search".into(), FeatureValue::Switch(true))].into(),
            temporary: Default::default(),
        }
    }

    #[test]
    fn equal_overrides_share_a_plan_that_follows_its_base() {
        let mut plans = Plans::default();
        plans.put(plan(3));
        let name = "gold".parse().unwrap();
        let soon = Temporary { value: FeatureValue::Number(2), until: DateTime::UNIX_EPOCH };
        let off: Overrides = [
            ("search".to_owned(), FeatureValue::Switch(false).into()),
            ("exports".to_owned(), Override::Temporary(soon.clone())),
        ]
        .into();
        let seven = serde_json::from_str(r#"{"max_users":7}"#).unwrap();
        let first = plans.effective(&name, &off, &seven).unwrap();
        let second = plans.effective(&name, &off, &seven).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((first.limits.max_users, first.limits.max_connections), (7, 3));
        assert_eq!(first.features.get("search"), Some(&FeatureValue::Switch(false)));
        assert_eq!((first.features.get("exports"), first.temporary.get("exports")), (None, Some(&soon)));

        let became = plans.put(plan(4));
        assert_eq!(became.len(), 2);
        let new = became.iter().find(|(old, _)| Arc::ptr_eq(old, &first)).map(|(_, new)| new).unwrap();
        assert_eq!((new.limits.max_users, new.limits.max_connections), (7, 4));
        assert!(plans.put(plan(4)).is_empty(), "an unchanged plan changes nothing");
        let base = plans.effective(&name, &Overrides::new(), &LimitOverrides::new()).unwrap();
        assert!(became.iter().any(|(_, new)| Arc::ptr_eq(new, &base)), "and stays what tenants have");
    }

    #[test]
    fn variants_that_nobody_has_are_forgotten() {
        let mut plans = Plans::default();
        plans.put(plan(3));
        let name = "gold".parse().unwrap();
        for users in 0..10_000 {
            let limits = serde_json::from_str(&format!(r#"{{"max_users":{users}}}"#)).unwrap();
            plans.effective(&name, &Overrides::new(), &limits).unwrap();
        }
        assert!(plans.variants.len() <= 128, "{}", plans.variants.len());
    }
}
