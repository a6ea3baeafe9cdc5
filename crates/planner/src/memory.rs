//! Who gives way when memory that tenants share is full. A ledger and its arithmetic: no clock, no lock, no I/O; the caller asks before it
//! stores, removes what it is told to, and gives back what it removed.
//!
//! A tenant's *guarantee* is its part of the whole by weight, among the tenants that have something stored. What nobody uses is lent.
//! Always:
//! - what was granted and not given back is never more than the whole, nor a tenant's part of it more than the tenant's quota;
//! - nobody within its guarantee gives way to another tenant;
//! - above the guarantees the tier with the least weight gives way first, and in a tier whoever has most; nobody above its
//!   guarantee takes from a heavier tier, or from an equal that has less.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use insula_core::TenantNo;

/// The answer to a request for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes; it is accounted for.
    Granted,
    /// When this tenant (it may be the one that asks) has given something back, ask again.
    From(TenantNo),
    /// No, whatever is removed: it is larger than the quota, or than what others leave.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    used: u64,
    weight: u32,
}

/// The ledger.
#[derive(Debug)]
pub struct Memory {
    capacity: u64,
    used: u64,
    /// Of all tenants that have something.
    weights: u64,
    accounts: HashMap<TenantNo, Account>,
    /// Tenants by what they have, for each weight.
    tiers: BTreeMap<u32, BTreeSet<(u64, TenantNo)>>,
}

impl Memory {
    /// An empty ledger of so many bytes.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, weights: 0, accounts: HashMap::new(), tiers: BTreeMap::new() }
    }

    /// Asks for `bytes` for a tenant of that weight (at least 1) that may have `quota` bytes in all.
    pub fn ask(&mut self, tenant: TenantNo, weight: u32, quota: u64, bytes: u64) -> Answer {
        let weight = weight.max(1);
        let own = self.weigh(tenant, weight);
        let quota = quota.min(self.capacity);
        if bytes > quota {
            return Answer::Refused;
        }
        let wanted = own + bytes;
        if wanted > quota {
            return Answer::From(tenant);
        }
        if self.used + bytes <= self.capacity {
            self.set(tenant, weight, wanted);
            return Answer::Granted;
        }
        let weights = self.weights + if own == 0 { u64::from(weight) } else { 0 };
        let within = wanted <= self.guarantee(weight, weights);
        for (tier, tenants) in &self.tiers {
            if !within && *tier > weight {
                break;
            }
            let Some((most, holder)) = tenants.last() else { continue };
            let lent = *most > self.guarantee(*tier, weights);
            if lent && (within || *tier < weight || *most > wanted) {
                return Answer::From(*holder);
            }
        }
        if own > 0 { Answer::From(tenant) } else { Answer::Refused }
    }

    /// Gives back bytes that were granted.
    pub fn give_back(&mut self, tenant: TenantNo, bytes: u64) {
        let Some(account) = self.accounts.get(&tenant).copied() else { return };
        self.set(tenant, account.weight, account.used.saturating_sub(bytes));
    }

    /// Bytes that are granted.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// Bytes that there are.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes that one tenant has.
    #[must_use]
    pub fn held_by(&self, tenant: TenantNo) -> u64 {
        self.accounts.get(&tenant).map_or(0, |account| account.used)
    }

    /// Tenants that have something.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.accounts.len()
    }

    fn guarantee(&self, weight: u32, weights: u64) -> u64 {
        let part = u128::from(self.capacity) * u128::from(weight) / u128::from(weights.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// What the tenant has, under the weight that it has now: plans change.
    fn weigh(&mut self, tenant: TenantNo, weight: u32) -> u64 {
        match self.accounts.get(&tenant).copied() {
            Some(account) => {
                if account.weight != weight {
                    self.set(tenant, weight, account.used);
                }
                account.used
            }
            None => 0,
        }
    }

    fn set(&mut self, tenant: TenantNo, weight: u32, used: u64) {
        if let Some(old) = self.accounts.remove(&tenant) {
            self.used -= old.used;
            self.weights -= u64::from(old.weight);
            if let Some(tier) = self.tiers.get_mut(&old.weight) {
                tier.remove(&(old.used, tenant));
                if tier.is_empty() {
                    self.tiers.remove(&old.weight);
                }
            }
        }
        if used > 0 {
            self.used += used;
            self.weights += u64::from(weight);
            self.tiers.entry(weight).or_default().insert((used, tenant));
            self.accounts.insert(tenant, Account { used, weight });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn no(n: i64) -> TenantNo {
        TenantNo::new(n).expect("positive")
    }

    /// Stores `bytes`, removing `piece` bytes at a time from whoever has to give way; answers who gave.
    fn store(memory: &mut Memory, tenant: i64, weight: u32, quota: u64, bytes: u64) -> (bool, Vec<i64>) {
        let mut gave = Vec::new();
        loop {
            match memory.ask(no(tenant), weight, quota, bytes) {
                Answer::Granted => return (true, gave),
                Answer::Refused => return (false, gave),
                Answer::From(who) => {
                    gave.push(who.get());
                    let has = memory.held_by(who);
                    assert!(has > 0, "nothing to give");
                    memory.give_back(who, has.min(10));
                }
            }
        }
    }

    #[test]
    fn what_nobody_uses_is_lent_and_comes_back() {
        let mut memory = Memory::new(100);
        assert_eq!(store(&mut memory, 1, 1, 100, 100), (true, vec![]));
        // Half of it is the second's, on demand; no more than that.
        assert_eq!(store(&mut memory, 2, 1, 100, 50), (true, vec![1; 5]));
        assert_eq!(store(&mut memory, 2, 1, 100, 10), (true, vec![2]));
        assert_eq!((memory.held_by(no(1)), memory.held_by(no(2))), (50, 50));
        // A tenant of weight 2 has half among three.
        assert!(store(&mut memory, 3, 2, 100, 50).0);
        assert_eq!(memory.held_by(no(3)), 50);
        assert!(memory.held_by(no(1)) >= 20 && memory.held_by(no(2)) >= 20);
    }

    #[test]
    fn the_lighter_tier_gives_first_and_not_to_itself_from_the_heavier() {
        let mut memory = Memory::new(100);
        assert!(store(&mut memory, 1, 4, 100, 85).0);
        assert!(store(&mut memory, 2, 1, 100, 10).0);
        assert!(store(&mut memory, 2, 1, 100, 5).0);
        assert_eq!(store(&mut memory, 2, 1, 100, 5), (true, vec![1]), "within its guarantee of 20 it may");
        assert_eq!(store(&mut memory, 2, 1, 100, 10), (true, vec![2]), "beyond, not from a heavier one");
        memory.give_back(no(1), 40);
        assert!(store(&mut memory, 2, 1, 100, 45).0, "what nobody uses");
        assert_eq!(store(&mut memory, 1, 4, 100, 10), (true, vec![2]));
    }

    #[test]
    fn a_quota_is_kept_though_there_is_room() {
        let mut memory = Memory::new(1_000);
        assert!(store(&mut memory, 1, 1, 30, 30).0);
        assert_eq!(store(&mut memory, 1, 1, 30, 10), (true, vec![1]));
        assert_eq!(store(&mut memory, 1, 1, 30, 31), (false, vec![]));
        assert_eq!((memory.used(), memory.tenants()), (30, 1));
        memory.give_back(no(1), 30);
        assert_eq!((memory.used(), memory.tenants()), (0, 0));
    }

    proptest! {
        #[test]
        fn the_promises_hold(steps in proptest::collection::vec((1i64..8, 1u64..60, any::<bool>()), 1..400)) {
            let mut memory = Memory::new(200);
            let weight = |tenant: i64| [1, 1, 1, 2, 2, 4, 8][usize::try_from(tenant - 1).unwrap()];
            for (tenant, bytes, back) in steps {
                let quota = if tenant == 1 { 40 } else { 150 };
                if back {
                    memory.give_back(no(tenant), bytes);
                    continue;
                }
                for round in 0.. {
                    prop_assert!(round < 500, "never ends");
                    let present: u64 = (1..8).filter(|t| *t == tenant || memory.held_by(no(*t)) > 0).map(|t| u64::from(weight(t))).sum();
                    let own = memory.held_by(no(tenant));
                    match memory.ask(no(tenant), weight(tenant), quota, bytes) {
                        Answer::Granted => {
                            prop_assert!(memory.used() <= 200);
                            prop_assert!(memory.held_by(no(tenant)) <= quota);
                            break;
                        }
                        Answer::Refused => {
                            let guarantee = 200 * u64::from(weight(tenant)) / present;
                            prop_assert!(bytes > quota || (own == 0 && bytes > guarantee), "refused within its guarantee");
                            break;
                        }
                        Answer::From(who) => {
                            let has = memory.held_by(who);
                            prop_assert!(has > 0);
                            if who != no(tenant) {
                                let (theirs, mine) = (weight(who.get()), weight(tenant));
                                prop_assert!(has > 200 * u64::from(theirs) / present, "took from one within its guarantee");
                                let within = own + bytes <= 200 * u64::from(mine) / present;
                                prop_assert!(within || theirs < mine || (theirs == mine && has > own + bytes));
                            }
                            memory.give_back(who, has.min(7));
                        }
                    }
                }
                let sum: u64 = (1..8).map(|t| memory.held_by(no(t))).sum();
                prop_assert_eq!(sum, memory.used());
            }
        }
    }
}
