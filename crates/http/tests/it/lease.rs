//! Several gateways that share a plan's rate: by a model of the meeting place under a clock that is moved by hand, and by a real Redis that
//! is killed and brought back.

use std::collections::HashMap;
use std::time::Duration;

use insula_core::{ClassLimits, Limits};
use insula_http::admit::lease::{Award, Claim, LASTS, MeterKey, OPENING, POT, Report, SILENT, SLACK, Sharing, pot};
use insula_http::admit::{Admission, AdmissionConfig, ClassConfig, ClassNo, Ticks};
use insula_planner::gcra::Quota;
use insula_planner::pot::Pot;
use proptest::prelude::*;

use crate::admit::Town;

/// What Redis does, in memory.
#[derive(Default)]
pub(crate) struct Meeting {
    /// Pots, with the interval of the last claim, and when it was.
    pots: HashMap<MeterKey, (Pot, u64, u64)>,
    /// When each process was heard last.
    heard: Vec<u64>,
}

impl Meeting {
    pub(crate) fn round(&mut self, now: u64, who: usize, report: &Report) -> Award {
        self.heard[who] = now;
        let silent = u64::try_from(SILENT.as_nanos()).unwrap();
        let (parties, heard) = (self.heard.len() as u64, self.heard.iter().filter(|at| **at + silent >= now).count() as u64);
        for (meter, units) in &report.spent {
            if let Some((pot, interval, _)) = self.pots.get_mut(meter) {
                pot.charge(now, *interval * parties / heard, *units);
            }
        }
        // As Redis forgets them.
        self.pots.retain(|_, (_, _, claimed)| now < *claimed + 3_000_000_000);
        let give = |claim: &Claim| {
            let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap();
            let interval = claim.interval * parties / heard;
            let capacity = (nanos(POT) / interval).clamp(1, claim.burst);
            let opened = || (Pot::full_at(now + interval * capacity + nanos(OPENING)), claim.interval, now);
            let (kept, _, claimed) = self.pots.entry(claim.meter.clone()).or_insert_with(opened);
            *claimed = now;
            kept.give(now, interval, capacity, claim.units)
        };
        let granted = report.claims.iter().map(give).collect();
        Award { parties: self.heard.len() as u32, granted, hot: self.pots.keys().cloned().collect() }
    }
}

const STEP: u64 = 10;
const RATE: u32 = 200;
const BURST: u32 = 100;

struct Edge {
    admission: Admission,
    sharing: Sharing,
}

/// Gateways of one fleet under one clock.
struct Fleet {
    town: Town,
    ticks: Ticks,
    edges: Vec<Edge>,
    meeting: Meeting,
    passed: Vec<u32>,
}

impl Fleet {
    async fn new(size: u32) -> Self {
        let class = ClassLimits { requests_per_second: Some(50), request_burst: Some(25), ..ClassLimits::default() };
        let town = Town::new(Limits {
            requests_per_second: RATE,
            request_burst: BURST,
            max_concurrent_requests: 10_000,
            route_classes: [("export".parse().unwrap(), class)].into(),
            ..Limits::default()
        })
        .await;
        let ticks = Ticks::by_hand();
        let export =
            ClassConfig { name: "export".parse().unwrap(), paths: vec!["/x".into()], methods: vec![], max_in_flight: None };
        let edge = |_| {
            let config = AdmissionConfig { classes: vec![export.clone()], ..Default::default() };
            let admission = Admission::with_ticks(config, ticks.clone()).unwrap();
            Edge { sharing: Sharing::new(admission.clone(), size), admission }
        };
        let edges = (0..size).map(edge).collect();
        Self { town, ticks, edges, meeting: Meeting { heard: vec![1; size as usize], ..Meeting::default() }, passed: Vec::new() }
    }

    /// One step of time: each gateway is asked so often; those that meet do so every tenth step, each at its own.
    fn step(&mut self, class: ClassNo, asked: &[u32], meets: &[bool]) {
        self.ticks.advance(Duration::from_millis(STEP));
        let (at, route) = (self.passed.len(), self.town.route(1));
        let mut passed = 0;
        for (n, edge) in self.edges.iter_mut().enumerate() {
            passed += (0..asked[n]).filter(|_| edge.admission.try_admit(&route, class).is_ok()).count() as u32;
            if at % 10 != n * 3 % 10 {
                continue;
            }
            let report = edge.sharing.report();
            if meets[n] {
                let award = self.meeting.round(self.ticks.now(), n, &report);
                edge.sharing.apply(&award);
            } else {
                edge.sharing.give_up();
            }
        }
        self.passed.push(passed);
    }

    /// The most that any span saw above burst and rate.
    fn excess(&self, rate: u32, burst: u32) -> f64 {
        let (mut worst, mut lowest, mut sum) = (0.0f64, 0.0f64, 0.0f64);
        // The largest sum of a run of (passed - what the rate gives in the step).
        for passed in &self.passed {
            sum += f64::from(*passed) - f64::from(rate) * STEP as f64 / 1_000.0;
            worst = worst.max(sum - lowest);
            lowest = lowest.min(sum);
        }
        // The first step of a span takes no time.
        worst + f64::from(rate) * STEP as f64 / 1_000.0 - f64::from(burst)
    }

    fn per_second(&self, last_steps: usize) -> f64 {
        let last = &self.passed[self.passed.len() - last_steps..];
        f64::from(last.iter().sum::<u32>()) * 1_000.0 / (last_steps as f64 * STEP as f64)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever load comes where, and whoever cannot reach the meeting place when: the sum is within the stated bound.
    #[test]
    fn the_sum_over_gateways_stays_within_the_plan_and_the_slack(
        size in 1u32..5,
        phases in proptest::collection::vec((proptest::collection::vec(0u32..12, 4), proptest::collection::vec(any::<bool>(), 4), 5usize..150), 1..20),
    ) {
        runtime().block_on(async {
            let mut fleet = Fleet::new(size).await;
            for (asked, meets, steps) in phases {
                (0..steps).for_each(|_| fleet.step(ClassNo::DEFAULT, &asked, &meets));
            }
            let bound = f64::from(RATE) * SLACK.as_secs_f64() + f64::from(size);
            let excess = fleet.excess(RATE, BURST);
            assert!(excess <= bound, "{excess} beyond the plan, {bound} allowed");
        });
    }
}

#[test]
fn all_the_load_at_one_gateway_gets_nearly_the_whole_plan() {
    runtime().block_on(async {
        let mut fleet = Fleet::new(4).await;
        (0..1_000).for_each(|_| fleet.step(ClassNo::DEFAULT, &[10, 0, 0, 0], &[true; 4]));
        let rate = fleet.per_second(500);
        assert!((0.95..=1.01).contains(&(rate / f64::from(RATE))), "{rate} a second");
        // The others come back: together still the plan.
        (0..1_000).for_each(|_| fleet.step(ClassNo::DEFAULT, &[10, 3, 1, 0], &[true; 4]));
        let rate = fleet.per_second(500);
        assert!((0.95..=1.01).contains(&(rate / f64::from(RATE))), "{rate} a second");
    });
}

#[test]
fn a_class_is_shared_as_a_tenant_is() {
    runtime().block_on(async {
        let mut fleet = Fleet::new(2).await;
        let class = fleet.edges[0].admission.classes().named("export").unwrap();
        (0..1_000).for_each(|_| fleet.step(class, &[5, 0], &[true; 2]));
        let rate = fleet.per_second(500);
        assert!((0.9..=1.01).contains(&(rate / 50.0)), "{rate} a second");
        assert!(fleet.excess(50, 25) <= 52.0);
    });
}

#[test]
fn alone_each_goes_on_at_its_fraction() {
    runtime().block_on(async {
        let mut fleet = Fleet::new(4).await;
        (0..300).for_each(|_| fleet.step(ClassNo::DEFAULT, &[10; 4], &[true; 4]));
        (0..300).for_each(|_| fleet.step(ClassNo::DEFAULT, &[10; 4], &[false; 4]));
        // Leases lapse; then all together get the plan, one of them a quarter.
        let lapse = usize::try_from(LASTS.as_millis()).unwrap() / STEP as usize;
        let rate = fleet.per_second(300 - lapse);
        assert!((0.98..=1.01).contains(&(rate / f64::from(RATE))), "{rate} a second");
        (0..300).for_each(|_| fleet.step(ClassNo::DEFAULT, &[10, 0, 0, 0], &[false; 4]));
        let rate = fleet.per_second(200);
        assert!((0.98..=1.02).contains(&(rate * 4.0 / f64::from(RATE))), "{rate} a second");
    });
}

#[test]
fn a_pot_is_small() {
    assert_eq!(pot(Quota::new(200, 100)), 50);
    assert_eq!(pot(Quota::new(2, 100)), 1);
    assert_eq!(pot(Quota::new(2_000, 100)), 100);
}
