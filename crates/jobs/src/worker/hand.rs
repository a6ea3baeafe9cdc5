//! A hand of a desk: says how jobs ended and takes new ones, in one round trip. Two hands, so that one takes while the other's answer is on its way;
//! when there is little to do, the scout alone looks.

use std::sync::Arc;
use std::time::Duration;

use insula_core::TenantNo;
use insula_core::placement::POOL_DATABASE;
use serde_json::{Value, json};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::oneshot;

use super::desk::Desk;
use super::link::{Done, Link, Taken, options};
use super::state::State;
use crate::error::Error;
use crate::said;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Looks also when there was nothing.
    Scout,
    /// Helps when there is much.
    Second,
}

/// What one round trip says and asks.
struct Errand {
    done: Done,
    ends: Vec<Value>,
    tell: Vec<Value>,
    want: usize,
}

/// How long ends may wait for others to be said with, while there is other work.
const LINGER: Duration = Duration::from_millis(3);

/// How much one take brings, as time that it will take. Who comes while a take is under way waits for that to end and for the next: short takes keep
/// that short, long ones save round trips.
const STRIDE: Duration = Duration::from_millis(2);

/// What a take brings at least where there is room, however slow the pace: a server that is long in making a commit durable would else be asked for
/// little, be paced by that, and be asked for less. Choosing so many takes it about as long as a [`STRIDE`].
const LEAST: usize = 64;

/// Why a hand goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// There is something to say, or room.
    Changed,
    /// What there is to say has waited long enough.
    Lingered,
    /// Something came, by notification.
    Rung,
    /// It is time to look.
    Polled,
}

/// Works until the desk's session is over; on `link`, if there is one already. `looked` hears of the first look.
pub(crate) async fn work(desk: Arc<Desk>, me: i64, part: Part, mut link: Option<Link>, mut looked: Option<oneshot::Sender<()>>) {
    let mut woken = if part == Part::Scout { Woken::Polled } else { Woken::Changed };
    // Whether enqueueing is to tell, as far as this hand knows.
    let mut told = None;
    while desk.state().me == me {
        let Some(errand) = desk.errand(woken) else {
            woken = wait(&desk, part).await;
            if woken == Woken::Rung && !desk.passes_by {
                // Whoever rang has put the mark out.
                told = None;
            }
            continue;
        };
        let want = errand.want;
        let ran = run(&desk, me, &mut link, errand).await;
        if let Some(looked) = looked.take() {
            let _ = looked.send(());
        }
        match ran {
            Ok(taken) => {
                woken = Woken::Changed;
                let Some(link) = link.as_mut().filter(|_| part == Part::Scout) else { continue };
                if taken > 0 {
                    // Where nobody but this mark says so: nobody rings while there is something to do anyway.
                    if desk.passes_by && told != Some(false) {
                        let _ = link.away(false).await;
                    }
                    told = desk.passes_by.then_some(false);
                }
                if taken < want && told != Some(true) {
                    // Said that it sleeps, and then one more look: what was enqueued before is found, what is enqueued after notifies.
                    let said = if desk.passes_by { link.away(true).await } else { link.sleeps().await };
                    told = said.is_ok().then_some(true);
                    woken = Woken::Polled;
                }
            }
            Err(error) => {
                link = None;
                tracing::warn!(%error, database = %desk.name().database, "the queue did not answer");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Waits for something to say or to take.
async fn wait(desk: &Desk, part: Part) -> Woken {
    let (to_say, busy) = {
        let state = desk.state();
        (state.to_say(), !state.running.is_empty())
    };
    let changed = async {
        if to_say > 0 && busy {
            tokio::time::sleep(LINGER).await;
            return Woken::Lingered;
        }
        desk.changed.notified().await;
        Woken::Changed
    };
    if part == Part::Second {
        return changed.await;
    }
    tokio::select! {
        woken = changed => woken,
        () = desk.bell.notified() => Woken::Rung,
        () = tokio::time::sleep(desk.shared.config.poll) => Woken::Polled,
    }
}

/// Rings the desk's bell when the database notifies.
pub(crate) async fn listen(desk: Arc<Desk>) {
    loop {
        if let Err(error) = ring(&desk).await {
            tracing::debug!(%error, "not notified of new jobs for a while");
        }
        // Polling goes on meanwhile.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn ring(desk: &Desk) -> Result<(), Error> {
    let options = options(&desk.shared, desk.name())?;
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("insula_jobs").await?;
    // For the databases of single tenants in this cell, by name.
    let is_pool = *desk.name().database == *POOL_DATABASE;
    if is_pool {
        listener.listen("insula_bell").await?;
    }
    loop {
        let heard = listener.recv().await?;
        match heard.channel() {
            "insula_bell" => desk.shared.visits.ring(&desk.name().cell, heard.payload()),
            _ => desk.bell.notify_one(),
        }
    }
}

/// One round trip (more when something is settled or told). How many were taken.
async fn run(desk: &Arc<Desk>, me: i64, link: &mut Option<Link>, errand: Errand) -> Result<usize, Error> {
    let mut asked = Asked { desk, want: errand.want, over: false };
    let said = say(desk, me, link, errand).await;
    match said {
        Ok(taken) => {
            let count = taken.len();
            desk.put(me, taken);
            asked.over = true;
            desk.state().dry = count < asked.want;
            drop(asked);
            desk.reconcile(me, link).await?;
            Ok(count)
        }
        Err(error) => Err(error),
    }
}

/// Counts what was asked for, until it is answered; an answer that is lost is looked for later.
struct Asked<'a> {
    desk: &'a Desk,
    want: usize,
    over: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.desk.shared.bench.answered(self.want);
        let mut state = self.desk.state();
        state.taking -= 1;
        state.lost_answer |= !self.over;
    }
}

async fn say(desk: &Arc<Desk>, me: i64, link: &mut Option<Link>, errand: Errand) -> Result<Vec<Taken>, Error> {
    let Errand { done, ends, tell, want } = errand;
    // What cannot be said now is said again: an end of an attempt that is over already is not believed twice.
    let again = |desk: &Desk, ends: Vec<Value>, done: Done| {
        let mut state = desk.state();
        state.ends.extend(ends);
        state.done.append(done);
    };
    if link.is_none() {
        match Link::open(&desk.shared, desk.name()).await {
            Ok(open) => *link = Some(open),
            Err(error) => {
                again(desk, ends, done);
                return Err(error);
            }
        }
    }
    let Some(open) = link else { return Ok(Vec::new()) };
    if !tell.is_empty() {
        // Lost, it is told again with the next job of the lane.
        open.tell_lanes(&Value::Array(tell)).await?;
    }
    let mut parcels = said::parcels(ends).into_iter();
    while let Some(ends) = parcels.next() {
        let ends = Value::Array(ends);
        if let Err(error) = open.settle(me, &ends).await {
            let ends = if let Value::Array(ends) = ends { ends } else { Vec::new() };
            again(desk, ends.into_iter().chain(parcels.flatten()).collect(), done);
            return Err(error.into());
        }
    }
    if done.len() == 0 && want == 0 {
        return Ok(Vec::new());
    }
    match open.work(me, &done, want).await {
        Ok(taken) => Ok(taken),
        Err(error) => {
            again(desk, Vec::new(), done);
            Err(error.into())
        }
    }
}

impl Desk {
    /// What is to be said and asked now, if anything.
    fn errand(&self, woken: Woken) -> Option<Errand> {
        let bench = &self.shared.bench;
        let config = &self.shared.config;
        let mut state = self.state();
        state.pace.look();
        let ahead = state.pace.in_span(config.ahead).min(config.ahead_most);
        let stride = state.pace.in_span(STRIDE).clamp(1, ahead.max(1));
        let (idle, coming) = (bench.idle(), bench.coming());
        let room = (idle + ahead).saturating_sub(coming);
        let to_say = state.to_say();
        let look = matches!(woken, Woken::Rung | Woken::Polled);
        // An end may let a lane go on that was at its cap, so it is a reason to look as well.
        let may_take = !state.stopping && !state.lost_answer && (look || to_say > 0 || !state.dry);
        // A few at a time are not worth a round trip while there is enough to do.
        let worth = room >= stride || idle > coming;
        let quiet = state.running.is_empty() && coming == 0;
        let enough_to_say = to_say >= 128 || (to_say > 0 && (quiet || woken == Woken::Lingered));
        let take = may_take && worth && room > 0 && (look || !state.dry || enough_to_say);
        let unclear = state.lost_answer && state.taking == 0;
        if !take && !enough_to_say && !unclear {
            return None;
        }
        let want = if take { room.min(stride.max(LEAST).max(config.concurrency)) } else { 0 };
        state.taking += 1;
        bench.ask(want);
        Some(Self::collect(&mut state, want))
    }

    fn collect(state: &mut State, want: usize) -> Errand {
        let tell = std::mem::take(&mut state.tell);
        Errand {
            done: std::mem::take(&mut state.done),
            ends: std::mem::take(&mut state.ends),
            tell: tell.into_iter().map(|((tenant, lane), settings)| settings.json(tenant, &lane)).collect(),
            want,
        }
    }

    /// Finds out what a lost answer had given, and gives it back.
    async fn reconcile(&self, me: i64, link: &mut Option<Link>) -> Result<(), Error> {
        {
            let mut state = self.state();
            if !state.lost_answer || state.taking > 0 {
                return Ok(());
            }
            // Nobody takes meanwhile.
            state.taking += 1;
        }
        let held = match link {
            Some(link) => link.holds(me).await,
            None => Ok(Vec::new()),
        };
        let mut state = self.state();
        state.taking -= 1;
        for (tenant, id, attempt, lane) in held? {
            let known = state.held.contains_key(&(tenant, id)) || state.done.ids.contains(&id);
            if !known && TenantNo::new(tenant).is_some() {
                state.ends.push(json!({ "t": tenant, "i": id, "a": attempt, "l": lane, "o": "back", "d": 0 }));
            }
        }
        state.lost_answer = false;
        Ok(())
    }
}
