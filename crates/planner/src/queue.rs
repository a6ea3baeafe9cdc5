//! Who goes next when a cell is full: start-time fair queueing (Goyal, Vin, Cheng 1996) over tenants, by the weight of their tiers.
//!
//! For: requests that wait for one shared thing and are served one by one. Not for: places that are held by tier and guarantee
//! (`share`), clocks, or waiting itself.
//! Always:
//! - among tenants that wait, service is in proportion to their weights, to within one request each, over any span;
//! - one tenant's requests are served in their order; a thousand requests of one do not delay another's first;
//! - a full queue loses the newest request of the tenant with the longest line for its weight;
//! - what is kept of tenants that do not wait is bounded by what was served a moment ago.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use insula_core::TenantNo;

/// Virtual time that one unit takes at weight 1. Divided by weights, so with room for exact thirds and sevenths, nearly.
const UNIT: u64 = 5_040 * 16;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// All tenants together.
    pub all: usize,
    /// One tenant.
    pub each: usize,
}

/// Where a waiting request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    tenant: TenantNo,
    seq: u64,
}

/// The answer to a request that wants to wait.
#[derive(Debug)]
pub enum Joined<W> {
    /// In line.
    Waiting(Place),
    /// In line, and another tenant's newest request had to leave for it: tell it.
    Instead(Place, W),
    /// Its tenant's line is full, or the longest of a full queue.
    Refused(W),
}

#[derive(Debug)]
struct Line<W> {
    weight: u64,
    /// Finish tag of the last served request.
    finish: u64,
    /// The start tag under which it stands in `heads`, when it waits.
    start: u64,
    queue: VecDeque<(u64, u32, W)>,
}

/// The queue. `W` is whatever stands for a waiting request.
#[derive(Debug)]
pub struct FairQueue<W> {
    bounds: Bounds,
    /// Virtual time: the start tag of the last served request.
    now: u64,
    seq: u64,
    waiting: usize,
    /// Sum of the weights of tenants that wait.
    weights: u64,
    lines: BTreeMap<TenantNo, Line<W>>,
    /// (start tag, sequence of the first request, tenant) of tenants that wait.
    heads: BTreeSet<(u64, u64, TenantNo)>,
    /// (length by weight, tenant) of tenants that wait.
    longest: BTreeSet<(u64, TenantNo)>,
    /// (finish tag, tenant) of tenants that do not wait but were served beyond `now`.
    resting: BTreeSet<(u64, TenantNo)>,
}

impl<W> FairQueue<W> {
    /// An empty queue.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            now: 0,
            seq: 0,
            waiting: 0,
            weights: 0,
            lines: BTreeMap::new(),
            heads: BTreeSet::new(),
            longest: BTreeSet::new(),
            resting: BTreeSet::new(),
        }
    }

    /// A request of `cost` units joins its tenant's line. The tenant's weight from now on is `weight`.
    pub fn join(&mut self, tenant: TenantNo, weight: u32, cost: u32, waiter: W) -> Joined<W> {
        if self.lines.get(&tenant).is_some_and(|line| line.queue.len() >= self.bounds.each) || self.bounds.each == 0 {
            return Joined::Refused(waiter);
        }
        self.leave_indexes(tenant);
        self.seq += 1;
        let place = Place { tenant, seq: self.seq };
        let line = self.lines.entry(tenant).or_insert_with(Line::new);
        line.weight = u64::from(weight.max(1));
        line.queue.push_back((place.seq, cost.max(1), waiter));
        self.waiting += 1;
        self.enter_indexes(tenant);
        if self.waiting <= self.bounds.all {
            return Joined::Waiting(place);
        }
        let own = self.lines.get(&tenant).map_or(0, Line::length);
        let longest = self.longest.last().filter(|(length, _)| *length > own).map_or(tenant, |(_, who)| *who);
        match self.drop_newest(longest) {
            Some(waiter) if longest == tenant => Joined::Refused(waiter),
            Some(waiter) => Joined::Instead(place, waiter),
            None => Joined::Waiting(place),
        }
    }

    /// The request to serve next.
    pub fn serve(&mut self) -> Option<(TenantNo, W)> {
        let (start, _, tenant) = *self.heads.first()?;
        self.leave_indexes(tenant);
        self.now = self.now.max(start);
        let line = self.lines.get_mut(&tenant)?;
        let (_, cost, waiter) = line.queue.pop_front()?;
        line.finish = start + UNIT * u64::from(cost) / line.weight;
        self.waiting -= 1;
        self.enter_indexes(tenant);
        self.forget();
        Some((tenant, waiter))
    }

    /// Takes a request out of the line: its owner gave up. `None` when it was served or pushed out already.
    pub fn withdraw(&mut self, place: Place) -> Option<W> {
        let line = self.lines.get(&place.tenant)?;
        let at = line.queue.iter().position(|(seq, ..)| *seq == place.seq)?;
        self.remove(place.tenant, at)
    }

    /// Requests that wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// About how many requests will be served before one that `tenant` joins now, itself included.
    #[must_use]
    pub fn turns(&self, tenant: TenantNo, weight: u32) -> u64 {
        let weight = u64::from(weight.max(1));
        let (own, others) = match self.lines.get(&tenant) {
            Some(line) if !line.queue.is_empty() => (line.queue.len() as u64, self.weights - line.weight),
            _ => (0, self.weights),
        };
        let fair = (own + 1).saturating_mul(others + weight).div_ceil(weight);
        fair.min(self.waiting as u64 + 1)
    }

    fn drop_newest(&mut self, tenant: TenantNo) -> Option<W> {
        let last = self.lines.get(&tenant)?.queue.len().checked_sub(1)?;
        self.remove(tenant, last)
    }

    fn remove(&mut self, tenant: TenantNo, at: usize) -> Option<W> {
        self.leave_indexes(tenant);
        let removed = self.lines.get_mut(&tenant).and_then(|line| line.queue.remove(at));
        self.waiting -= usize::from(removed.is_some());
        self.enter_indexes(tenant);
        removed.map(|(.., waiter)| waiter)
    }

    fn leave_indexes(&mut self, tenant: TenantNo) {
        let Some(line) = self.lines.get(&tenant) else { return };
        match line.queue.front() {
            Some((seq, ..)) => {
                self.heads.remove(&(line.start, *seq, tenant));
                self.longest.remove(&(line.length(), tenant));
                self.weights -= line.weight;
            }
            None => {
                self.resting.remove(&(line.finish, tenant));
            }
        }
    }

    fn enter_indexes(&mut self, tenant: TenantNo) {
        let Some(line) = self.lines.get_mut(&tenant) else { return };
        match line.queue.front() {
            Some((seq, ..)) => {
                line.start = self.now.max(line.finish);
                self.heads.insert((line.start, *seq, tenant));
                self.longest.insert((line.length(), tenant));
                self.weights += line.weight;
            }
            None if line.finish > self.now => {
                self.resting.insert((line.finish, tenant));
            }
            None => {
                self.lines.remove(&tenant);
            }
        }
    }

    /// Nothing need be known of who has no claim against the others any more.
    fn forget(&mut self) {
        if self.waiting == 0 {
            self.lines.clear();
            self.resting.clear();
        }
        while let Some((finish, tenant)) = self.resting.first().copied()
            && finish <= self.now
        {
            self.resting.remove(&(finish, tenant));
            self.lines.remove(&tenant);
        }
    }
}

impl<W> Line<W> {
    const fn new() -> Self {
        Self { weight: 1, finish: 0, start: 0, queue: VecDeque::new() }
    }

    /// How long the line is for its weight.
    fn length(&self) -> u64 {
        self.queue.len() as u64 * UNIT / self.weight
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn no(n: i64) -> TenantNo {
        TenantNo::new(n).expect("positive")
    }

    fn fill<W>(queue: &mut FairQueue<W>, tenant: TenantNo, weight: u32, cost: u32, waiter: W) {
        assert!(matches!(queue.join(tenant, weight, cost, waiter), Joined::Waiting(_)));
    }

    const WIDE: Bounds = Bounds { all: 1_000_000, each: 1_000_000 };

    /// Serves `n` of a queue in which every tenant always waits; answers how often each was served.
    fn saturated(weights: &[u32], n: usize) -> Vec<u64> {
        let mut queue = FairQueue::new(WIDE);
        let mut served = vec![0; weights.len()];
        let join = |queue: &mut FairQueue<usize>, at: usize| {
            queue.join(no(i64::try_from(at).expect("small") + 1), weights[at], 1, at);
        };
        (0..weights.len()).for_each(|at| (0..3).for_each(|_| join(&mut queue, at)));
        for _ in 0..n {
            let (_, at) = queue.serve().expect("all wait");
            served[at] += 1;
            join(&mut queue, at);
        }
        served
    }

    #[test]
    fn equals_are_served_equally_and_weights_are_kept() {
        let served = saturated(&[1; 50], 50_000);
        assert!(served.iter().all(|n| (999..=1_001).contains(n)), "{served:?}");
        let served = saturated(&[1, 2, 4], 70_000);
        assert!((9_990..=10_010).contains(&served[0]) && (39_990..=40_010).contains(&served[2]), "{served:?}");
    }

    #[test]
    fn one_request_does_not_wait_behind_a_thousand_of_another() {
        let mut queue = FairQueue::new(WIDE);
        (0..1_000).for_each(|_| fill(&mut queue, no(1), 1, 1, "many"));
        for _ in 0..100 {
            queue.serve();
        }
        queue.join(no(2), 1, 1, "one");
        assert_eq!(queue.turns(no(3), 1), 3);
        let next: Vec<_> = (0..2).filter_map(|_| queue.serve()).map(|(_, who)| who).collect();
        assert!(next.contains(&"one"), "{next:?}");
        assert_eq!(queue.turns(no(1), 1), 900, "its own line, and nobody else's");
    }

    #[test]
    fn a_full_queue_loses_the_newest_of_the_longest_line() {
        let mut queue = FairQueue::new(Bounds { all: 4, each: 3 });
        assert!(matches!(queue.join(no(1), 1, 1, 1), Joined::Waiting(_)));
        (2..=3).for_each(|n| fill(&mut queue, no(1), 1, 1, n));
        assert!(matches!(queue.join(no(1), 1, 1, 4), Joined::Refused(4)), "its own line is full");
        assert!(matches!(queue.join(no(2), 1, 1, 5), Joined::Waiting(_)));
        assert!(matches!(queue.join(no(3), 1, 1, 6), Joined::Instead(_, 3)));
        // By weight, three of a heavy tenant are fewer than two of a light one.
        let mut queue = FairQueue::new(Bounds { all: 5, each: 9 });
        (0..3).for_each(|n| fill(&mut queue, no(1), 8, 1, n));
        (3..5).for_each(|n| fill(&mut queue, no(2), 1, 1, n));
        assert!(matches!(queue.join(no(3), 1, 1, 6), Joined::Instead(_, 4)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(i64, u32),
        Next,
        Withdraw(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1i64..8, 1u32..4).prop_map(|(who, cost)| Step::Join(who, cost)),
            3 => Just(Step::Next),
            1 => (0usize..50).prop_map(Step::Withdraw),
        ]
    }

    proptest! {
        /// Every request leaves exactly once, each tenant's in order, and the indexes always fit.
        #[test]
        fn nothing_is_lost_and_order_is_kept(steps in proptest::collection::vec(step(), 1..400)) {
            let bounds = Bounds { all: 20, each: 8 };
            let mut queue = FairQueue::new(bounds);
            let mut inside: Vec<(i64, u64, Place)> = Vec::new();
            let mut id = 0u64;
            for step in steps {
                match step {
                    Step::Join(who, cost) => {
                        id += 1;
                        match queue.join(no(who), u32::try_from(who).expect("small"), cost, id) {
                            Joined::Waiting(place) => inside.push((who, id, place)),
                            Joined::Instead(place, out) => {
                                let at = inside.iter().position(|(_, id, _)| *id == out).expect("it was inside");
                                inside.remove(at);
                                inside.push((who, id, place));
                            }
                            Joined::Refused(out) => prop_assert_eq!(out, id),
                        }
                    }
                    Step::Next => match queue.serve() {
                        Some((tenant, id)) => {
                            let at = inside.iter().position(|(who, ..)| no(*who) == tenant).expect("it was inside");
                            prop_assert_eq!(inside.remove(at).1, id, "the tenant's oldest");
                        }
                        None => prop_assert!(inside.is_empty()),
                    },
                    Step::Withdraw(at) if !inside.is_empty() => {
                        let (_, id, place) = inside.remove(at % inside.len());
                        prop_assert_eq!(queue.withdraw(place), Some(id));
                        prop_assert_eq!(queue.withdraw(place), None);
                    }
                    Step::Withdraw(_) => {}
                }
                prop_assert_eq!(queue.waiting(), inside.len());
                prop_assert!(queue.waiting() <= bounds.all);
                let lined = queue.lines.values().filter(|l| !l.queue.is_empty());
                prop_assert_eq!(queue.weights, lined.clone().map(|l| l.weight).sum::<u64>());
                prop_assert_eq!(queue.heads.len(), lined.clone().count());
                prop_assert_eq!(queue.longest.len(), lined.count());
                prop_assert_eq!(queue.heads.len() + queue.resting.len(), queue.lines.len());
            }
        }

        /// Tenants that always wait get service by weight to within one request each, whatever the costs.
        #[test]
        fn service_follows_weight(weights in proptest::collection::vec(1u32..9, 2..12), costs in proptest::collection::vec(1u32..5, 2..12), n in 50usize..2_000) {
            let mut queue = FairQueue::new(WIDE);
            let cost = |at: usize| costs[at % costs.len()];
            let who = |at: usize| no(i64::try_from(at).expect("small") + 1);
            let mut served = vec![0f64; weights.len()];
            (0..weights.len()).for_each(|at| (0..2).for_each(|_| fill(&mut queue, who(at), weights[at], cost(at), at)));
            for _ in 0..n {
                let (_, at) = queue.serve().expect("all wait");
                served[at] += f64::from(cost(at));
                queue.join(who(at), weights[at], cost(at), at);
            }
            let normal: Vec<f64> = (0..weights.len()).map(|at| served[at] / f64::from(weights[at])).collect();
            for a in 0..normal.len() {
                for b in 0..normal.len() {
                    let bound = f64::from(cost(a)) / f64::from(weights[a]) + f64::from(cost(b)) / f64::from(weights[b]);
                    prop_assert!((normal[a] - normal[b]).abs() <= bound + 0.01, "{normal:?}");
                }
            }
        }
    }
}
