//! Carries sweeps on: who is next, batch by batch.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_catalog::Route;
use insula_core::TenantState;
use serde_json::{Value, json};
use uuid::Uuid;

use super::due::zone_of;
use crate::each::{TierOrder, has};
use crate::error::Error;
use crate::schedules::window;
use crate::worker::desk::Desk;
use crate::worker::link::{Link, OpenSweep};

/// How soon one is looked at again whose tenants left are not active, or not in their window.
const REST: Duration = Duration::from_secs(10);
/// Steps in one look, for one that has no pace.
const STEPS: usize = 50;

/// What is known of one sweep.
#[derive(Default)]
struct Sweep {
    /// Those that it has been at; read once, then kept.
    marked: HashSet<i64, foldhash::fast::RandomState>,
    /// Those that were not to be had.
    passed: HashSet<i64, foldhash::fast::RandomState>,
    next: VecDeque<i64>,
    read: bool,
    rest_until: Option<Instant>,
}

/// The sweeps of one database.
#[derive(Default)]
pub(super) struct Sweeps(HashMap<String, Sweep>);

impl Sweeps {
    /// Takes what may be taken now. How long until there may be more.
    pub(super) async fn sweep(&mut self, desk: &Arc<Desk>, link: &mut Link) -> Result<Option<Duration>, Error> {
        let open = link.sweeps_open().await?;
        self.0.retain(|name, _| open.iter().any(|sweep| sweep.name == *name));
        let mut soonest = None;
        for sweep in open {
            let known = self.0.entry(sweep.name.clone()).or_default();
            let again = known.go_on(desk, link, &sweep).await?;
            soonest = Some(soonest.map_or(again, |soonest: Duration| soonest.min(again)));
        }
        Ok(soonest)
    }
}

impl Sweep {
    async fn go_on(&mut self, desk: &Arc<Desk>, link: &mut Link, sweep: &OpenSweep) -> Result<Duration, Error> {
        if let Some(rest) = self.rest_until.and_then(|until| until.checked_duration_since(Instant::now())) {
            return Ok(rest);
        }
        if sweep.wait_ms > 0 {
            return Ok(Duration::from_millis(u64::try_from(sweep.wait_ms).unwrap_or_default()));
        }
        if !self.read {
            self.marked = link.sweep_marks(&sweep.name).await?.into_iter().collect();
            self.read = true;
        }
        for _ in 0..STEPS {
            if self.next.is_empty() {
                self.next = self.line(desk, sweep);
            }
            let most = usize::try_from(sweep.most).unwrap_or(1).max(1);
            let batch: Vec<i64> = self.next.drain(..most.min(self.next.len())).collect();
            if batch.is_empty() {
                return self.rest(desk, link, sweep).await;
            }
            let entries = batch.iter().filter_map(|no| {
                let route = desk.shared.tenants.at(*no, desk.name()).ok()?;
                Some(json!({ "t": no, "i": Uuid::now_v7(), "s": !sweep.feature.as_deref().is_none_or(|feature| has(&route, feature)) }))
            });
            let reached = link.sweep_step(&sweep.name, &Value::Array(entries.collect())).await?;
            if reached.is_empty() {
                // Another worker is at it: then what it takes is read again.
                self.next.clear();
                self.read = false;
                return Ok(REST / 10);
            }
            self.marked.extend(reached);
            // Those that the database does not have as active now have their turn later.
            self.passed.extend(batch.iter().filter(|no| !self.marked.contains(no)));
            desk.bell.notify_one();
            if sweep.paced {
                break;
            }
        }
        Ok(Duration::from_millis(20))
    }

    /// Nobody is left who may be taken: it is over, or waits for some.
    async fn rest(&mut self, desk: &Arc<Desk>, link: &mut Link, sweep: &OpenSweep) -> Result<Duration, Error> {
        if link.sweep_end(&sweep.name).await? {
            tracing::info!(sweep = sweep.name, database = %desk.name().database, "a sweep has been at every tenant");
        }
        // Some are not active, or not in their window.
        *self = Self { rest_until: Some(Instant::now() + REST), ..Self::default() };
        Ok(REST)
    }

    /// Who is left and may be taken now: by tier, then by number.
    fn line(&self, desk: &Arc<Desk>, sweep: &OpenSweep) -> VecDeque<i64> {
        let name = desk.name();
        let order = if sweep.lowest_first { TierOrder::LowestFirst } else { TierOrder::HighestFirst };
        let window = window(sweep.off_peak_from, sweep.off_peak_to);
        let (mut left, weights) = desk.shared.catalog.look(|view| {
            let here =
                view.routes().filter(|route| route.placement.cell == name.cell && route.placement.database == name.database);
            let left: Vec<Arc<Route>> = here
                .filter(|route| route.state() == TenantState::Active && route.no.get() <= sweep.last_no)
                .filter(|route| !self.marked.contains(&route.no.get()) && !self.passed.contains(&route.no.get()))
                .filter(|route| window.is_none_or(|window| window.holds(&zone_of(route), sweep.now_us)))
                .cloned()
                .collect();
            let mut weights: Vec<u32> = left.iter().map(|route| route.plan.tier.weight).collect();
            weights.sort_unstable();
            weights.dedup();
            (left, weights)
        });
        left.sort_by_key(|route| (order.place(&weights, route.plan.tier.weight), route.no));
        left.into_iter().map(|route| route.no.get()).collect()
    }
}
