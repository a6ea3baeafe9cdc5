//! Who gets the next of a fixed number of places (database connections, above all) when tenants of several tiers want more
//! than there are. A ledger and its arithmetic: no clock, no lock, no I/O; the caller asks, gives back and serves.
//!
//! Always:
//! - no more places are out than there are; no tier holds more than its cap, no tenant more than its own maximum;
//! - a tier below its guarantee finds a free place unless other guarantees hold it; what is kept free for a tier is kept only
//!   while the tier is present, that is, has asked since the last [`Share::forget_absent`] but one;
//! - a tier with nothing in use is served before any tier is served beyond its guarantee, so none starves;
//! - within a tier the tenant with the fewest places in use goes first; among equals the one with the smallest start tag
//!   (start-time fair queueing: Goyal, Vin, Cheng 1996), so a tenant that asks a thousand times waits behind one that asks once;
//! - a full queue loses the newest request of the tenant with the longest line, never one of a tenant with a shorter line.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use insula_core::{TenantNo, Tier};

/// How much there is to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Places.
    pub capacity: u32,
    /// Requests that may wait, all tenants together.
    pub queue: usize,
    /// Requests of one tenant that may wait.
    pub queue_per_tenant: usize,
}

/// Where a place, or a waiting request, is entered in the ledger. Must be given back exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    tier: usize,
    tenant: TenantNo,
    seq: u64,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer<W> {
    /// Served at once.
    Served(Entry, W),
    /// In line. When the queue was full, another tenant's newest request had to leave: tell it.
    Waiting(Entry, Option<W>),
    /// The tenant's own line is full, or it has the longest line of a full queue.
    Refused(W),
}

/// Why a request would wait now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The tenant holds its own maximum.
    OwnLimit,
    /// Its tier holds its cap, or all places are out or kept for others.
    Busy,
}

#[derive(Debug)]
struct Line<W> {
    in_use: u32,
    max: u32,
    /// Finish tag of its last served request.
    finish: u64,
    queue: VecDeque<(u64, W)>,
    /// The key under which it stands in `Class::ready`, when it does.
    key: Option<(u32, u64, u64)>,
}

#[derive(Debug)]
struct Class<W> {
    name: Arc<str>,
    weight: u64,
    guarantee: u32,
    cap: u32,
    in_use: u32,
    /// Start tag of the last served request: the class's virtual time.
    now: u64,
    /// Sequence of its last service, to break ties between classes.
    served: u64,
    /// Rounds of `forget_absent` since it last asked.
    absent: u8,
    lines: BTreeMap<TenantNo, Line<W>>,
    /// Lines that wait and are below their maximum: (in use, start tag, sequence, tenant).
    ready: BTreeSet<(u32, u64, u64, TenantNo)>,
}

/// The ledger. `W` is whatever stands for a waiting request.
#[derive(Debug)]
pub struct Share<W> {
    bounds: Bounds,
    in_use: u32,
    waiting: usize,
    seq: u64,
    classes: Vec<Class<W>>,
    /// Lines by length, for the longest: (length, tier, tenant).
    longest: BTreeSet<(usize, usize, TenantNo)>,
}

impl<W> Share<W> {
    /// An empty ledger.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, in_use: 0, waiting: 0, seq: 0, classes: Vec::new(), longest: BTreeSet::new() }
    }

    /// Serves a request at once, when nobody would have to go before it: the usual case, in which nothing has to be kept of it.
    /// `None` when it has to [`Share::ask`] and wait.
    pub fn take(&mut self, tenant: TenantNo, tier: &Tier, max: u32) -> Option<Entry> {
        let at = self.class_of(tier);
        let free = self.bounds.capacity.saturating_sub(self.in_use);
        let kept = self.kept_from(at);
        let class = &mut self.classes[at];
        class.absent = 0;
        let fits = free > 0 && class.in_use < class.cap && (class.below_guarantee() || free > kept);
        // Whoever is ready while a place is free has been served already; who is ready now goes first.
        if !fits || !class.ready.is_empty() {
            return None;
        }
        let line = class.lines.entry(tenant).or_insert_with(Line::new);
        line.max = max.max(1);
        if line.in_use >= line.max || !line.queue.is_empty() {
            self.rekey(at, tenant);
            return None;
        }
        let start = class.now.max(line.finish);
        line.in_use += 1;
        line.finish = start + 1;
        self.seq += 1;
        (class.now, class.served, class.in_use) = (start, self.seq, class.in_use + 1);
        self.in_use += 1;
        Some(Entry { tier: at, tenant, seq: self.seq })
    }

    /// Asks for a place for `tenant`, which may hold `max` (at least 1) of them. When the answer is [`Answer::Waiting`], call
    /// [`Share::serve`] until it has nobody: a raised maximum may let another of the tenant's requests go.
    pub fn ask(&mut self, tenant: TenantNo, tier: &Tier, max: u32, waiter: W) -> Answer<W> {
        let tier = self.class_of(tier);
        self.seq += 1;
        let entry = Entry { tier, tenant, seq: self.seq };
        let class = &mut self.classes[tier];
        class.absent = 0;
        let line = class.lines.entry(tenant).or_insert_with(Line::new);
        line.max = max.max(1);
        let length = line.queue.len();
        if length > 0 && length >= self.bounds.queue_per_tenant {
            return Answer::Refused(waiter);
        }
        line.queue.push_back((entry.seq, waiter));
        self.waiting += 1;
        self.longest.remove(&(length, tier, tenant));
        self.longest.insert((length + 1, tier, tenant));
        self.rekey(tier, tenant);
        // Served at once only when nobody who may go now goes before it.
        if length == 0
            && let Some((entry, waiter)) = self.serve_from(Some((tier, tenant)))
        {
            return Answer::Served(entry, waiter);
        }
        self.bounded(entry)
    }

    /// Gives a served place back. Call [`Share::serve`] afterwards until it has nobody.
    pub fn give_back(&mut self, entry: Entry) {
        self.in_use = self.in_use.saturating_sub(1);
        let class = &mut self.classes[entry.tier];
        class.in_use = class.in_use.saturating_sub(1);
        if let Some(line) = class.lines.get_mut(&entry.tenant) {
            line.in_use = line.in_use.saturating_sub(1);
        }
        self.rekey(entry.tier, entry.tenant);
    }

    /// Takes a waiting request out of the line: its owner gave up. `None` when it was served or pushed out already.
    pub fn withdraw(&mut self, entry: Entry) -> Option<W> {
        let line = self.classes[entry.tier].lines.get_mut(&entry.tenant)?;
        let at = line.queue.iter().position(|(seq, _)| *seq == entry.seq)?;
        self.take_from(entry.tier, entry.tenant, at)
    }

    /// Who is to be served next, counted as served; `None` when nobody may.
    pub fn serve(&mut self) -> Option<(Entry, W)> {
        self.serve_from(None)
    }

    /// Why a request of this tenant would have to wait.
    #[must_use]
    pub fn reason(&self, entry: Entry) -> Reason {
        match self.classes[entry.tier].lines.get(&entry.tenant) {
            Some(line) if line.in_use >= line.max => Reason::OwnLimit,
            _ => Reason::Busy,
        }
    }

    /// A round of forgetting: what is kept free for a tier that has not asked for two rounds is lent to the others.
    pub fn forget_absent(&mut self) {
        for class in &mut self.classes {
            class.absent = if class.in_use > 0 || !class.lines.is_empty() { 0 } else { class.absent.saturating_add(1) };
        }
    }

    /// Places that are out.
    #[must_use]
    pub const fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Requests in line.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// (tier, places out, requests in line) of each tier.
    pub fn tiers(&self) -> impl Iterator<Item = (&Arc<str>, u32, usize)> {
        self.classes.iter().map(|c| (&c.name, c.in_use, c.lines.values().map(|l| l.queue.len()).sum()))
    }

    /// Places that one tenant holds.
    #[must_use]
    pub fn held_by(&self, tenant: TenantNo) -> u32 {
        self.classes.iter().filter_map(|c| c.lines.get(&tenant)).map(|l| l.in_use).sum()
    }

    fn class_of(&mut self, tier: &Tier) -> usize {
        let capacity = u64::from(self.bounds.capacity);
        let part = |percent: u8| u32::try_from(capacity * u64::from(percent.min(100)) / 100).unwrap_or(u32::MAX);
        let cap = part(tier.pool_cap).max(1);
        let guarantee = part(tier.pool_guarantee).min(cap);
        let at = self.classes.iter().position(|c| *c.name == *tier.name).unwrap_or_else(|| {
            self.classes.push(Class::new(tier.name.as_str().into()));
            self.classes.len() - 1
        });
        // Plans are data and change: the newest word counts.
        let class = &mut self.classes[at];
        (class.weight, class.guarantee, class.cap) = (u64::from(tier.weight.max(1)), guarantee, cap);
        at
    }

    /// Whether the class may take one more place now.
    fn may(&self, tier: usize) -> bool {
        let class = &self.classes[tier];
        let free = self.bounds.capacity.saturating_sub(self.in_use);
        if class.ready.is_empty() || free == 0 || class.in_use >= class.cap {
            return false;
        }
        class.below_guarantee() || free > self.kept_from(tier)
    }

    /// Free places that are kept for the guarantees of the other tiers that are present.
    fn kept_from(&self, tier: usize) -> u32 {
        let others = self.classes.iter().enumerate().filter(|(i, c)| *i != tier && c.absent < 2);
        others.map(|(_, c)| c.guarantee.saturating_sub(c.in_use)).fold(0, u32::saturating_add)
    }

    fn serve_from(&mut self, only: Option<(usize, TenantNo)>) -> Option<(Entry, W)> {
        let tier = (0..self.classes.len()).filter(|i| self.may(*i)).min_by(|a, b| self.order(*a, *b))?;
        let key = *self.classes[tier].ready.first()?;
        if only.is_some_and(|o| o != (tier, key.3)) {
            return None;
        }
        let (start, tenant) = (key.1, key.3);
        self.seq += 1;
        let served = self.seq;
        let class = &mut self.classes[tier];
        class.now = class.now.max(start);
        class.served = served;
        class.in_use += 1;
        let line = class.lines.get_mut(&tenant)?;
        line.in_use += 1;
        line.finish = start + 1;
        let seq = line.queue.front()?.0;
        self.in_use += 1;
        let waiter = self.take_from(tier, tenant, 0)?;
        Some((Entry { tier, tenant, seq }, waiter))
    }

    /// Which class goes first: below its guarantee, then least used for its weight, then the longest not served.
    fn order(&self, a: usize, b: usize) -> std::cmp::Ordering {
        let (a, b) = (&self.classes[a], &self.classes[b]);
        (b.below_guarantee().cmp(&a.below_guarantee()))
            .then_with(|| (u64::from(a.in_use) * b.weight).cmp(&(u64::from(b.in_use) * a.weight)))
            .then_with(|| a.served.cmp(&b.served))
    }

    /// Removes the request at `at` of a line, and keeps the indexes right.
    fn take_from(&mut self, tier: usize, tenant: TenantNo, at: usize) -> Option<W> {
        let line = self.classes[tier].lines.get_mut(&tenant)?;
        let length = line.queue.len();
        let (_, waiter) = line.queue.remove(at)?;
        self.waiting -= 1;
        self.longest.remove(&(length, tier, tenant));
        if length > 1 {
            self.longest.insert((length - 1, tier, tenant));
        }
        self.rekey(tier, tenant);
        Some(waiter)
    }

    /// Puts a line where it belongs among the ready ones; drops it when it has nothing.
    fn rekey(&mut self, tier: usize, tenant: TenantNo) {
        let class = &mut self.classes[tier];
        let Some(line) = class.lines.get_mut(&tenant) else { return };
        if let Some((used, start, seq)) = line.key.take() {
            class.ready.remove(&(used, start, seq, tenant));
        }
        match line.queue.front() {
            Some((seq, _)) if line.in_use < line.max => {
                let key = (line.in_use, class.now.max(line.finish), *seq);
                line.key = Some(key);
                class.ready.insert((key.0, key.1, key.2, tenant));
            }
            None if line.in_use == 0 => {
                class.lines.remove(&tenant);
            }
            _ => {}
        }
    }

    /// Keeps the queue within its bound after `entry` joined it.
    fn bounded(&mut self, entry: Entry) -> Answer<W> {
        if self.waiting <= self.bounds.queue {
            return Answer::Waiting(entry, None);
        }
        let own = self.classes[entry.tier].lines.get(&entry.tenant).map_or(0, |l| l.queue.len());
        let Some(&(length, tier, tenant)) = self.longest.last() else { return Answer::Waiting(entry, None) };
        let (tier, tenant, length) = if length <= own { (entry.tier, entry.tenant, own) } else { (tier, tenant, length) };
        let out = self.take_from(tier, tenant, length - 1);
        match out {
            Some(waiter) if (tier, tenant) == (entry.tier, entry.tenant) => Answer::Refused(waiter),
            out => Answer::Waiting(entry, out),
        }
    }
}

impl<W> Line<W> {
    const fn new() -> Self {
        Self { in_use: 0, max: 1, finish: 0, queue: VecDeque::new(), key: None }
    }
}

impl<W> Class<W> {
    const fn new(name: Arc<str>) -> Self {
        Self {
            name,
            weight: 1,
            guarantee: 0,
            cap: 1,
            in_use: 0,
            now: 0,
            served: 0,
            absent: 0,
            lines: BTreeMap::new(),
            ready: BTreeSet::new(),
        }
    }

    /// One place is everyone's guarantee, so that no tier starves behind the others' reserves.
    fn below_guarantee(&self) -> bool {
        self.in_use < self.guarantee.max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn no(n: i64) -> TenantNo {
        TenantNo::new(n).expect("positive")
    }

    fn tier(at: usize) -> Tier {
        let (name, weight, pool_guarantee, pool_cap) = [("bronze", 1, 0, 60), ("silver", 2, 20, 80), ("gold", 4, 40, 100)][at];
        Tier { name: name.into(), weight, pool_guarantee, pool_cap }
    }

    /// Each tenant has one tier and one maximum.
    fn tier_of(tenant: i64) -> Tier {
        tier(usize::try_from(tenant % 3).expect("small"))
    }

    fn max_of(tenant: i64) -> u32 {
        u32::try_from(1 + tenant % 4).expect("small")
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(i64),
        GiveBack(usize),
        Withdraw(usize),
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (1..9_i64).prop_map(Step::Ask),
            3 => any::<usize>().prop_map(Step::GiveBack),
            1 => any::<usize>().prop_map(Step::Withdraw),
            1 => Just(Step::Forget),
        ]
    }

    /// The ledger beside a list of what is out and what waits, kept by hand.
    struct Model {
        share: Share<i64>,
        out: Vec<(Entry, i64)>,
        waiting: Vec<(Entry, i64)>,
    }

    impl Model {
        fn take(&mut self, step: Step) {
            match step {
                Step::Ask(tenant) => {
                    let (tier, max) = (tier_of(tenant), max_of(tenant));
                    if let Some(entry) = self.share.take(no(tenant), &tier, max) {
                        self.out.push((entry, tenant));
                        return;
                    }
                    match self.share.ask(no(tenant), &tier, max, tenant) {
                        Answer::Served(entry, who) => self.out.push((entry, who)),
                        Answer::Refused(_) => {}
                        Answer::Waiting(entry, pushed_out) => {
                            self.waiting.push((entry, tenant));
                            if let Some(who) = pushed_out {
                                let at = self.waiting.iter().rposition(|(_, tenant)| *tenant == who).expect("it waited");
                                self.waiting.remove(at);
                            }
                        }
                    }
                }
                Step::GiveBack(at) if !self.out.is_empty() => {
                    let (entry, _) = self.out.swap_remove(at % self.out.len());
                    self.share.give_back(entry);
                }
                Step::Withdraw(at) if !self.waiting.is_empty() => {
                    let (entry, tenant) = self.waiting.remove(at % self.waiting.len());
                    assert_eq!(self.share.withdraw(entry), Some(tenant));
                }
                Step::Forget => self.share.forget_absent(),
                _ => {}
            }
            while let Some((entry, tenant)) = self.share.serve() {
                let at = self.waiting.iter().position(|(waiting, _)| *waiting == entry).expect("it waited");
                assert_eq!(self.waiting.remove(at).1, tenant);
                self.out.push((entry, tenant));
            }
        }

        fn held(&self, tenant: impl Fn(i64) -> bool) -> u32 {
            u32::try_from(self.out.iter().filter(|(_, t)| tenant(*t)).count()).expect("few")
        }

        fn check(&self, bounds: Bounds) {
            assert_eq!(self.share.in_use() as usize, self.out.len());
            assert_eq!(self.share.waiting(), self.waiting.len());
            assert!(self.share.in_use() <= bounds.capacity && self.waiting.len() <= bounds.queue.max(1));
            for tenant in 1..9 {
                assert_eq!(self.share.held_by(no(tenant)), self.held(|t| t == tenant));
                assert!(self.held(|t| t == tenant) <= max_of(tenant));
            }
            for at in 0..3 {
                let of_tier = |t: i64| t % 3 == i64::try_from(at).expect("small");
                let cap = (bounds.capacity * u32::from(tier(at).pool_cap) / 100).max(1);
                assert!(self.held(of_tier) <= cap);
                // Work is conserved: with places free beyond all guarantees, whoever waits is held back by a bound of its own.
                let kept: u32 = (0..3).map(|i| bounds.capacity * u32::from(tier(i).pool_guarantee) / 100).sum();
                let full = |t: i64| self.held(|x| x == t) == max_of(t);
                if bounds.capacity - self.share.in_use() > kept && self.held(of_tier) < cap {
                    assert!(self.waiting.iter().all(|(_, t)| !of_tier(*t) || full(*t)), "a place is free and somebody waits");
                }
                // Nobody starves: a tier without a place waits only when there is none.
                if self.held(of_tier) == 0 && self.share.in_use() < bounds.capacity {
                    assert!(!self.waiting.iter().any(|(_, t)| of_tier(*t)), "a tier starves");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_and_nothing_is_lost(
            steps in proptest::collection::vec(step(), 0..300),
            capacity in 1..12_u32,
            queue in 1..12_usize,
            queue_per_tenant in 1..6_usize,
        ) {
            let bounds = Bounds { capacity, queue, queue_per_tenant };
            let mut model = Model { share: Share::new(bounds), out: Vec::new(), waiting: Vec::new() };
            for step in steps {
                model.take(step);
                model.check(bounds);
            }
            // When everything comes back, everybody is served.
            while !model.out.is_empty() {
                model.take(Step::GiveBack(0));
                model.check(bounds);
            }
            prop_assert!(model.waiting.is_empty());
            prop_assert_eq!((model.share.in_use(), model.share.waiting()), (0, 0));
        }
    }

    const WIDE: Bounds = Bounds { capacity: 10, queue: 1_000, queue_per_tenant: 1_000 };

    #[test]
    fn one_request_does_not_wait_behind_a_thousand_of_another() {
        let mut share = Share::new(Bounds { capacity: 2, ..WIDE });
        let bronze = Tier { pool_cap: 100, ..tier(0) };
        let out: Vec<Entry> = (0..2).map(|_| share.take(no(1), &bronze, 10).expect("free")).collect();
        for n in 0..500 {
            assert!(matches!(share.ask(no(1), &bronze, 10, n), Answer::Waiting(_, None)));
        }
        assert!(matches!(share.ask(no(2), &bronze, 10, 9_999), Answer::Waiting(_, None)));
        share.give_back(out[0]);
        assert_eq!(share.serve().map(|(_, who)| who), Some(9_999));
    }

    #[test]
    fn equals_take_turns() {
        let mut share = Share::new(Bounds { capacity: 1, ..WIDE });
        let bronze = tier(0);
        let mut held = share.take(no(1), &bronze, 9).expect("free");
        for n in 0..30 {
            assert!(matches!(share.ask(no(1 + n / 10), &bronze, 9, n / 10), Answer::Waiting(..)));
        }
        let mut order = Vec::new();
        for _ in 0..30 {
            share.give_back(held);
            let (entry, who) = share.serve().expect("somebody");
            order.push(who);
            held = entry;
        }
        for turn in order[..27].chunks(3) {
            assert_eq!(BTreeSet::from_iter(turn).len(), 3, "{order:?}");
        }
    }

    #[test]
    fn a_guarantee_is_kept_free_while_its_tier_is_present_and_lent_when_not() {
        let mut share = Share::<()>::new(WIDE);
        let (bronze, gold) = (Tier { pool_cap: 100, ..tier(0) }, tier(2));
        let visit = share.take(no(2), &gold, 9).expect("free");
        share.give_back(visit);
        let out: Vec<_> = (0..10).map_while(|_| share.take(no(1), &bronze, 99)).collect();
        assert_eq!(out.len(), 6, "four of ten are gold's");
        assert!(share.take(no(2), &gold, 9).is_some());
        let mut share = Share::<()>::new(WIDE);
        let visit = share.take(no(2), &gold, 9).expect("free");
        share.give_back(visit);
        share.forget_absent();
        share.forget_absent();
        assert_eq!((0..20).map_while(|_| share.take(no(1), &bronze, 99)).count(), 10);
    }

    #[test]
    fn a_full_queue_loses_the_newest_of_the_longest_line() {
        let mut share = Share::new(Bounds { capacity: 1, queue: 3, queue_per_tenant: 3 });
        let bronze = tier(0);
        share.take(no(9), &bronze, 1).expect("free");
        for n in 0..3 {
            assert!(matches!(share.ask(no(1), &bronze, 1, n), Answer::Waiting(_, None)));
        }
        assert!(matches!(share.ask(no(1), &bronze, 1, 3), Answer::Refused(3)));
        assert!(matches!(share.ask(no(2), &bronze, 1, 20), Answer::Waiting(_, Some(2))));
        assert!(matches!(share.ask(no(2), &bronze, 1, 21), Answer::Refused(21)));
    }
}
