//! Fires what has come, and computes when it comes next.

use std::sync::Arc;
use std::time::Duration;

use insula_catalog::Route;
use insula_planner::cron::{Cron, Window, Zone};
use metrics::{counter, histogram};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Clerk;
use crate::enqueue::{seconds, small};
use crate::error::Error;
use crate::schedules::window;
use crate::worker::desk::Desk;
use crate::worker::link::{Due, Link};

/// Schedules in one statement.
const BATCH: i32 = 500;
/// When a schedule is looked at again whose tenant this process does not know here.
const LATER: i64 = 10_000_000;

/// Fires until nothing is left that has come.
pub(super) async fn fire(desk: &Arc<Desk>, clerk: &mut Clerk, link: &mut Link, names: &[&str]) -> Result<(), Error> {
    // Bounded, should others change what is looked at again and again.
    for _ in 0..1_000 {
        let due = link.schedules_due(names, BATCH).await?;
        let full = due.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        let mut planned: Vec<(u32, i64, Value, bool)> = due.into_iter().filter_map(|due| plan(desk, clerk, &due)).collect();
        if planned.is_empty() {
            return Ok(());
        }
        // Whose tier weighs more stands before the others; then who has waited for longer.
        planned.sort_by_key(|(weight, next, ..)| (std::cmp::Reverse(*weight), *next));
        let again = full || planned.iter().any(|(.., computed)| *computed);
        let firings: Vec<Value> = planned.into_iter().map(|(_, _, firing, _)| firing).collect();
        let (done, fired) = link.schedule_fire(&Value::Array(firings)).await?;
        if fired > 0 {
            counter!("insula_schedules_fired_total").increment(u64::try_from(fired).unwrap_or_default());
            // This worker's own hands are told; others look by themselves.
            desk.bell.notify_one();
        }
        // Others are at the same: they do it.
        if !again || done == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// What is to be done about one: weight, when it was to come, the statement's part, and whether it was computed only (it may have come by now).
fn plan(desk: &Arc<Desk>, clerk: &mut Clerk, due: &Due) -> Option<(u32, i64, Value, bool)> {
    let route = match desk.shared.tenants.at(due.tenant, desk.name()) {
        Ok(route) => route,
        // Not to be found again and again before those whose turn it is.
        Err(_) => {
            due.next_us?;
            let later =
                json!({ "t": due.tenant, "n": due.name, "v": due.version, "x": due.now_us + LATER, "z": null, "f": false });
            return Some((0, 0, later, false));
        }
    };
    let local = zone_of(&route);
    let answer = |next: Option<i64>, error: Option<String>, fires: bool| {
        // Of a kind that this worker does not know, another may: then as the row says.
        let entry = desk.shared.jobs.get(&due.kind);
        let firing = json!({
            "t": due.tenant, "n": due.name, "v": due.version, "x": next, "z": route.settings.time_zone.as_str(), "e": error, "f": fires,
            "i": Uuid::now_v7(), "l": entry.map(|entry| entry.rules.lane(entry.kind)), "a": entry.map(|entry| small(entry.rules.attempts)),
            "c": entry.map(|entry| small(entry.rules.cost)), "k": entry.map(|entry| seconds(entry.rules.retention)),
        });
        let computed = due.next_us.is_none() && next.is_some();
        Some((route.plan.tier.weight, due.next_us.unwrap_or(due.now_us), firing, computed))
    };
    let read = clerk.pattern(&due.cron).and_then(|cron| {
        let zone = due.zone.as_deref().map_or_else(|| Ok(local.clone()), Zone::find)?;
        Ok(Rule {
            cron,
            zone,
            local: local.clone(),
            window: window(due.off_peak_from, due.off_peak_to),
            shift: due.shift_ms * 1_000,
        })
    });
    let rule = match read {
        Ok(rule) => rule,
        Err(error) => return answer(None, Some(error.to_string()), false),
    };
    let over = || Some("it never comes again".to_owned());
    match due.next_us {
        None => match rule.next(due.since_us) {
            Some(next) => answer(Some(next), None, false),
            None => answer(None, over(), false),
        },
        // It has come, but late: outside of its window.
        Some(_) if rule.window.is_some_and(|window| !window.holds(&rule.local, due.now_us)) => {
            answer(rule.window.map(|window| window.put_off(&rule.local, due.now_us)), None, false)
        }
        Some(came) => {
            let late = Duration::from_micros(u64::try_from(due.now_us - came).unwrap_or_default());
            histogram!("insula_schedules_late_seconds").record(late.as_secs_f64());
            let next = rule.next(due.now_us);
            answer(next, if next.is_none() { over() } else { None }, true)
        }
    }
}

/// When a schedule comes.
struct Rule {
    cron: Cron,
    zone: Zone,
    /// The tenant's.
    local: Zone,
    window: Option<Window>,
    /// Microseconds.
    shift: i64,
}

impl Rule {
    /// The first time after a moment: shifted, and put off into the window.
    fn next(&self, after: i64) -> Option<i64> {
        let next = self.cron.next(&self.zone, after - self.shift)? + self.shift;
        Some(self.window.map_or(next, |window| window.put_off(&self.local, next)))
    }
}

/// A tenant's own zone; UTC when its settings name one that there is not.
pub(super) fn zone_of(route: &Route) -> Zone {
    Zone::find(route.settings.time_zone.as_str()).unwrap_or_else(|_| Zone::utc())
}
