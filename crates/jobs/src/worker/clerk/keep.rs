//! Keeps in a database what code declares for its tenants.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_catalog::Route;
use serde_json::{Value, json};

use crate::error::Error;
use crate::worker::desk::Desk;
use crate::worker::link::Link;

/// Rows in one statement.
const BATCH: usize = 500;
/// How often it reads again what is there, in case somebody changed it.
const RELOAD: Duration = Duration::from_secs(300);

/// What is known to be kept.
#[derive(Default)]
pub(crate) struct Kept {
    /// Marks of what code's schedules were told.
    told: HashMap<(i64, String), i64>,
    /// Zones that schedules of tenants' own were computed in, where they follow the tenant's.
    local: HashMap<i64, String>,
    seen: HashMap<i64, Arc<Route>, foldhash::fast::RandomState>,
    /// Of all tiers that there are, ascending.
    weights: Vec<u32>,
    revision: Option<i64>,
    loaded: Option<Instant>,
}

/// What is to be said of some tenants.
#[derive(Default)]
struct Changes {
    keep: Vec<Value>,
    drop: Vec<Value>,
    follow: Vec<Value>,
    told: Vec<((i64, String), Option<i64>)>,
}

impl Kept {
    /// Brings the database to what the catalog and the code say now. Little to do when neither has changed.
    pub(super) async fn keep(&mut self, desk: &Arc<Desk>, link: &mut Link) -> Result<(), Error> {
        if self.loaded.is_none_or(|loaded| loaded.elapsed() > RELOAD) {
            self.load(link).await?;
        }
        let revision = desk.shared.catalog.revision();
        if self.revision == Some(revision) {
            return Ok(());
        }
        let name = desk.name();
        let mut weights = BTreeSet::new();
        let changed: Vec<Arc<Route>> = desk.shared.catalog.look(|view| {
            let routes = view.routes().inspect(|route| {
                weights.insert(route.plan.tier.weight);
            });
            let here = routes.filter(|route| route.placement.cell == name.cell && route.placement.database == name.database);
            here.filter(|route| self.seen.get(&route.no.get()).is_none_or(|seen| !Arc::ptr_eq(seen, route))).cloned().collect()
        });
        let weights: Vec<u32> = weights.into_iter().collect();
        if weights != self.weights {
            // Everybody has another place in the turns.
            self.weights = weights;
            self.seen.clear();
            return Box::pin(self.keep(desk, link)).await;
        }
        let mut left_out = false;
        for routes in changed.chunks(BATCH) {
            let changes = self.changes(desk, routes);
            let left = self.say(desk, link, changes).await?;
            left_out |= !left.is_empty();
            // Of those with something left, what was seen before is what the next look compares with.
            let through = routes.iter().filter(|route| !left.contains(&route.no.get()));
            self.seen.extend(through.map(|route| (route.no.get(), route.clone())));
        }
        self.revision = (!left_out).then_some(revision);
        Ok(())
    }

    /// Reads what is there.
    async fn load(&mut self, link: &mut Link) -> Result<(), Error> {
        self.told.clear();
        self.local.clear();
        self.seen.clear();
        self.revision = None;
        let mut after = (0, String::new());
        loop {
            let page = link.schedules_known(after.0, &after.1, 5_000).await?;
            let full = page.len() == 5_000;
            if let Some((tenant, name, ..)) = page.last() {
                after = (*tenant, name.clone());
            }
            for (tenant, name, code, told, local) in page {
                match (code, local) {
                    (true, _) => {
                        self.told.insert((tenant, name), told);
                    }
                    // Two that differ: one of them is to be changed.
                    (false, Some(local)) => {
                        let known = self.local.entry(tenant).or_insert_with(|| local.clone());
                        if *known != local {
                            known.clear();
                        }
                    }
                    (false, None) => {}
                }
            }
            if !full {
                break;
            }
        }
        self.loaded = Some(Instant::now());
        Ok(())
    }

    fn changes(&self, desk: &Arc<Desk>, routes: &[Arc<Route>]) -> Changes {
        let mut changes = Changes::default();
        for route in routes {
            let no = route.no.get();
            let zone = route.settings.time_zone.as_str();
            let before = self.seen.get(&no).map(|seen| seen.settings.time_zone.as_str());
            if before.or(self.local.get(&no).map(String::as_str)).is_some_and(|before| before != zone) {
                changes.follow.push(json!({ "t": no, "z": zone }));
            }
            for declared in desk.shared.jobs.each() {
                let key = (no, declared.name.to_string());
                let told = self.told.get(&key);
                if !declared.is_for(route) {
                    if told.is_some() {
                        changes.drop.push(json!({ "t": no, "n": &*declared.name }));
                        changes.told.push((key, None));
                    }
                    continue;
                }
                match declared.row(route, &self.weights) {
                    Ok((_, mark)) if told == Some(&mark) => {}
                    Ok((row, mark)) => {
                        changes.keep.push(row);
                        changes.told.push((key, Some(mark)));
                    }
                    Err(error) => {
                        tracing::error!(%error, tenant = no, schedule = &*declared.name, "a schedule's job cannot be made")
                    }
                }
            }
        }
        changes
    }

    /// Tenants for whom not all could be said now, because an open transaction of theirs is in the way: they have their turn at the next look, and
    /// nobody waits for them.
    async fn say(&mut self, desk: &Arc<Desk>, link: &mut Link, changes: Changes) -> Result<BTreeSet<i64>, Error> {
        let Changes { keep, drop, follow, told } = changes;
        let mut left = BTreeSet::new();
        let mut untold = BTreeSet::new();
        if !follow.is_empty() {
            left.extend(link.schedules_follow(&Value::Array(follow)).await?);
        }
        if !drop.is_empty() {
            untold.extend(link.schedules_drop(&Value::Array(drop)).await?);
        }
        let mut keep = keep.into_iter().peekable();
        while keep.peek().is_some() {
            let rows = Value::Array(keep.by_ref().take(BATCH).collect());
            for (tenant, name, left_out) in link.schedules_keep(&rows).await? {
                if left_out {
                    untold.insert((tenant, name));
                } else {
                    tracing::warn!(tenant, schedule = name, database = %desk.name().database, "a tenant has a schedule of its own by the name of one that code declares");
                }
            }
        }
        for (key, mark) in told.into_iter().filter(|(key, _)| !untold.contains(key)) {
            match mark {
                Some(mark) => self.told.insert(key, mark),
                None => self.told.remove(&key),
            };
        }
        left.extend(untold.into_iter().map(|(tenant, _)| tenant));
        Ok(left)
    }
}
