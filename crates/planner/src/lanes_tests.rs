//! The fair queue simulated: a clock of its own, W workers, thousands of lanes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

fn no(n: usize) -> TenantNo {
    TenantNo::new(i64::try_from(n).expect("small") + 1).expect("positive")
}

fn at(tenant: TenantNo) -> usize {
    usize::try_from(tenant.get() - 1).expect("small")
}

/// W workers on a queue; time is the end of the job that ends next. Deterministic: nothing but its inputs decides.
struct Simulation {
    lanes: Lanes<u64>,
    now: u64,
    slots: usize,
    /// (end, order, started, took)
    busy: BinaryHeap<Reverse<(u64, u64, usize)>>,
    started: Vec<Option<(Started<u64>, u64)>>,
    /// Places in `started` that are free again.
    free: Vec<usize>,
    /// Work done by tenant, in time.
    served: Vec<u64>,
    /// When each tenant's first job started.
    first: Vec<Option<u64>>,
    count: u64,
}

impl Simulation {
    fn new(tenants: usize, slots: usize) -> Self {
        Self {
            lanes: Lanes::default(),
            now: 0,
            slots,
            busy: BinaryHeap::new(),
            started: Vec::new(),
            free: Vec::new(),
            served: vec![0; tenants],
            first: vec![None; tenants],
            count: 0,
        }
    }

    /// Fills every free slot; none stays free while a lane is ready.
    fn fill(&mut self) {
        while self.busy.len() < self.slots {
            let Some(started) = self.lanes.take(self.now) else {
                assert_eq!(self.lanes.ready(), 0, "a slot is idle while a lane is ready");
                return;
            };
            let (tenant, took) = (at(started.tenant), started.job);
            self.first[tenant].get_or_insert(self.now);
            self.count += 1;
            let which = self.free.pop().unwrap_or_else(|| {
                self.started.push(None);
                self.started.len() - 1
            });
            self.started[which] = Some((started, took));
            self.busy.push(Reverse((self.now + took, self.count, which)));
        }
    }

    /// Goes to the end of the job that ends next; whose it was.
    fn step(&mut self) -> Option<usize> {
        let Reverse((end, _, which)) = self.busy.pop()?;
        self.now = end;
        let (over, took) = self.started[which].take().expect("ends once");
        self.free.push(which);
        self.lanes.finish(&over, u32::try_from(took).expect("short"));
        self.served[at(over.tenant)] += took;
        Some(at(over.tenant))
    }
}

/// A small generator (SplitMix64), so that a run is its seed.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Thousands of lanes whose jobs take 1 to 50, each with a backlog; newcomers come at odd moments. The wait of each is held to
/// the bound: one job of each active lane, by W, and what is left of one that runs.
#[test]
fn a_newcomer_waits_one_job_of_each_lane_by_the_number_of_workers() {
    let (lanes, newcomers, slots) = (5_000, 200, 16);
    let mut seed = 7;
    let mut sim = Simulation::new(lanes + newcomers, slots);
    let mut longest = 0;
    let refill = |sim: &mut Simulation, tenant: usize, seed: &mut u64| {
        let took = 1 + random(seed) % 50;
        // Declared as one; the measured time corrects it.
        sim.lanes.add(no(tenant), 0, 0, 1, took);
        took
    };
    for tenant in 0..lanes {
        // Some have a thousand times the backlog of others.
        for _ in 0..(2 + tenant % 5) * if tenant % 100 == 0 { 100 } else { 1 } {
            longest = longest.max(refill(&mut sim, tenant, &mut seed));
        }
    }
    for newcomer in lanes..lanes + newcomers {
        for _ in 0..random(&mut seed) % 400 {
            sim.fill();
            let over = sim.step().expect("work");
            refill(&mut sim, over, &mut seed);
        }
        let (came, active) = (sim.now, lanes + (newcomer - lanes));
        refill(&mut sim, newcomer, &mut seed);
        let bound = active as u64 * longest / slots as u64 + longest;
        while sim.first[newcomer].is_none() {
            sim.fill();
            assert!(sim.now - came <= bound, "waits {} of at most {bound}", sim.now - came);
            if sim.first[newcomer].is_none() {
                let over = sim.step().expect("work");
                refill(&mut sim, over, &mut seed);
            }
        }
    }
}

/// 2,000 lanes of weights 1, 2, 4, 8 that always have work of unknown length: each of them gets its share of the time within 1%.
#[test]
fn weights_are_kept_within_one_percent() {
    let (lanes, slots) = (2_000, 20);
    let weight = |tenant: usize| 1 << (tenant % 4);
    let mut seed = 11;
    let mut sim = Simulation::new(lanes, slots);
    for tenant in 0..lanes {
        sim.lanes.rule_lane(no(tenant), LaneRules { weight: weight(tenant), ..LaneRules::default() });
        for _ in 0..slots + 1 {
            sim.lanes.add(no(tenant), 0, 0, 3, 1 + random(&mut seed) % 4);
        }
    }
    // So long that a job, by which a lane may be ahead or behind, is less than one percent of what the lightest get.
    for _ in 0..2_000_000 {
        sim.fill();
        let over = sim.step().expect("work");
        sim.lanes.add(no(over), 0, 0, 3, 1 + random(&mut seed) % 4);
    }
    let all: u64 = sim.served.iter().sum();
    let weights: u32 = (0..lanes).map(weight).sum();
    for tenant in 0..lanes {
        let (got, due) = (sim.served[tenant] as f64, all as f64 * f64::from(weight(tenant)) / f64::from(weights));
        assert!((got / due - 1.0).abs() < 0.01, "lane {tenant} of weight {}: {got} of {due:.0}", weight(tenant));
    }
}

#[test]
fn a_million_of_one_do_not_delay_ten_of_another() {
    let mut sim = Simulation::new(2, 4);
    (0..1_000_000).for_each(|_| sim.lanes.add(no(0), 0, 0, 1, 1));
    for _ in 0..100 {
        sim.fill();
        sim.step();
    }
    let came = sim.now;
    (0..10).for_each(|_| sim.lanes.add(no(1), 0, 0, 1, 1));
    while sim.served[1] < 10 {
        sim.fill();
        sim.step();
    }
    assert!(sim.now - came <= 8, "{}", sim.now - came);
}

#[test]
fn caps_and_rates_hold_and_hold_up_nobody_else() {
    let mut lanes = Lanes::default();
    lanes.rule_kind(1, KindRules { cap: 2, interval: 0 });
    lanes.rule_kind(2, KindRules { cap: 9, interval: 10 });
    lanes.rule_lane(no(0), LaneRules { weight: 1, cap: 4 });
    (0..10).for_each(|_| lanes.add(no(0), 1, 5, 1, "export"));
    (0..10).for_each(|_| lanes.add(no(0), 2, 0, 1, "mail"));
    (0..10).for_each(|_| lanes.add(no(0), 0, -1, 1, "other"));
    let started: Vec<_> = std::iter::from_fn(|| lanes.take(0)).collect();
    let what: Vec<_> = started.iter().map(|s| s.job).collect();
    assert_eq!(what, ["export", "export", "mail", "other"], "two exports, one mail by its rate, four in all");
    lanes.add(no(1), 0, 0, 1, "neighbour");
    assert_eq!(lanes.take(0).map(|s| s.job), Some("neighbour"));
    lanes.finish(&started[0], 1);
    assert_eq!(lanes.take(5).map(|s| s.job), Some("export"));
    lanes.finish(&started[3], 1);
    assert_eq!(lanes.take(6).map(|s| s.job), Some("other"));
    lanes.finish(&started[2], 1);
    assert_eq!(lanes.next_wake(), Some(10));
    assert_eq!(lanes.take(10).map(|s| s.job), Some("mail"), "its time has come, and it is before the others");
    assert_eq!(lanes.take(99), None, "four are running");
}

/// The bound with work that is taken ahead, in batches: what waits in the worker is 400 jobs of 16 places, and a newcomer waits for none of it but one
/// job of each lane there. Until it is chosen, at most a batch starts. Shares stay what they are.
#[test]
fn what_was_taken_ahead_adds_one_batch_to_the_bound_and_nothing_else() {
    let (tenants, newcomers, slots, ahead, batch, longest) = (300, 100, 16, 400, 50, 20);
    let weight = |tenant: usize| if tenant < tenants { 1 << (tenant % 4) } else { 1 };
    let mut seed = 5;
    let mut sim = Simulation::new(tenants + newcomers, slots);
    let mut line = crate::ahead::Ahead::default();
    for tenant in 0..tenants + newcomers {
        sim.lanes.rule_lane(no(tenant), LaneRules { weight: weight(tenant), ..LaneRules::default() });
    }
    for tenant in 0..tenants {
        (0..200).for_each(|_| sim.lanes.add(no(tenant), 0, 0, 1, 1 + random(&mut seed) % longest));
    }
    let mut next = tenants;
    let mut came = 0;
    for round in 0..200_000_u64 {
        if line.len() + batch <= ahead {
            for _ in 0..batch {
                let Some(taken) = sim.lanes.take(sim.now) else { break };
                line.join(taken.tenant.get(), weight(at(taken.tenant)), taken.cost, taken);
            }
        }
        while sim.busy.len() < slots {
            let Some(started) = line.start() else { break };
            let tenant = at(started.tenant);
            sim.first[tenant].get_or_insert(sim.now);
            sim.count += 1;
            sim.started.push(Some((started, started.job)));
            sim.busy.push(Reverse((sim.now + started.job, sim.count, sim.started.len() - 1)));
        }
        assert_eq!(sim.busy.len(), slots, "a place is idle");
        let over = sim.step().expect("work");
        if over < tenants {
            sim.lanes.add(no(over), 0, 0, 1, 1 + random(&mut seed) % longest);
        }
        if round % 997 == 996 && next < tenants + newcomers {
            sim.lanes.add(no(next), 0, 0, 1, 1);
            (came, next) = (sim.now, next + 1);
        }
        if next > tenants && sim.first[next - 1].is_none() {
            let bound = (tenants + batch) as u64 * longest / slots as u64 + longest;
            assert!(sim.now - came <= bound, "waits {} of at most {bound}", sim.now - came);
        }
    }
    assert_eq!(next, tenants + newcomers);
    let all: u64 = sim.served[..tenants].iter().sum();
    for class in 0..4 {
        let got: u64 = (class..tenants).step_by(4).map(|t| sim.served[t]).sum();
        let due = all as f64 * f64::from(1 << class) / 15.0;
        assert!((got as f64 / due - 1.0).abs() < 0.02, "weight {}: {got} of {due}", 1 << class);
    }
}

proptest! {
    /// Every job starts once, by priority and age inside a lane; nothing ready is left when the queue says it has nothing.
    #[test]
    fn nothing_is_lost(steps in proptest::collection::vec((0usize..6, 0u32..3, -2i16..3, 1u32..9, any::<bool>()), 1..300)) {
        let mut lanes = Lanes::default();
        lanes.rule_kind(1, KindRules { cap: 1, interval: 0 });
        lanes.rule_kind(2, KindRules { cap: 3, interval: 2 });
        let (mut added, mut seen, mut running) = (0u64, BTreeSet::new(), Vec::new());
        for (now, (tenant, kind, priority, cost, take)) in steps.into_iter().enumerate() {
            let now = now as u64;
            if take {
                if let Some(started) = lanes.take(now) {
                    prop_assert!(seen.insert(started.job));
                    running.push(started);
                }
            } else {
                added += 1;
                lanes.add(no(tenant), kind, priority, cost, added);
            }
            if running.len() > 4 {
                lanes.finish(&running.remove(0), cost);
            }
        }
        let mut now = 1_000;
        loop {
            match (lanes.take(now), running.is_empty()) {
                (Some(started), _) => { prop_assert!(seen.insert(started.job)); running.push(started); }
                (None, false) => lanes.finish(&running.remove(0), 1),
                (None, true) => match lanes.next_wake() {
                    Some(when) => now = when.max(now + 1),
                    None => break,
                },
            }
        }
        prop_assert_eq!(seen.len() as u64, added);
    }
}
